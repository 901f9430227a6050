"""Iwin-L, pre-trained on ImageNet-22K for 90 epochs at 224 pixels.

The recipe of Swin's pre-training: that of the published weights is not known.
"""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.modeling import iwin_classifier

from ....configs.common.image_classification import (
    dataloader,
    dataset,
    lr_multiplier,
    optimizer,
    set_folders,
    train,
)

model = L(iwin_classifier)(
    name="iwin_large_patch4_window7_224_22k", num_classes=21841, drop_path_rate=0.2
)
set_folders("imagenet22k")
train.epochs["max"] = 90
optimizer.lr = 1.25e-4
lr_multiplier.warmup_length = 5 / 90
train.output_dir = "./output/iwin_l_224_imagenet22k"
