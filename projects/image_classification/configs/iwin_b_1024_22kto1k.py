"""Iwin-B from ImageNet-22K to ImageNet-1K, 30 epochs at 1024 pixels: top-1 85.6 % as published.

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
    name="iwin_base_patch4_window16_1024_22kto1k", num_classes=1000, drop_path_rate=0.2
)
fine_tune(1024, "iwin_base_patch4_window7_224_22k", classes="new")
train.output_dir = "./output/iwin_b_1024_22kto1k"
