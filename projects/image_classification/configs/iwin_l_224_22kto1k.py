"""Iwin-L from ImageNet-22K to ImageNet-1K, 30 epochs at 224 pixels: top-1 86.4 % as published.

The head is a new one; train.init_options.classes takes a file with the number in ImageNet-22K of
each class instead.
"""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.modeling import iwin_classifier

from ....configs.common.image_classification import (
    dataloader,
    dataset,
    fine_tune,
    lr_multiplier,
    optimizer,
    train,
)

model = L(iwin_classifier)(
    name="iwin_large_patch4_window7_224_22kto1k", num_classes=1000, drop_path_rate=0.2
)
fine_tune(224, "iwin_large_patch4_window7_224_22k", classes="new")
train.output_dir = "./output/iwin_l_224_22kto1k"
