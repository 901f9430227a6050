"""Iwin-B on ImageNet-1K, 300 epochs at 224 pixels: top-1 83.5 % as published."""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.modeling import iwin_classifier

from ....configs.common.image_classification import (
    dataloader,
    dataset,
    lr_multiplier,
    optimizer,
    train,
)

model = L(iwin_classifier)(
    name="iwin_base_patch4_window7_224", num_classes=1000, drop_path_rate=0.5
)
train.output_dir = "./output/iwin_b_224_imagenet1k"
