"""Iwin-B on ImageNet-1K, trained on for 30 epochs at 1024 pixels: top-1 85.0 % as published."""

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
    name="iwin_base_patch4_window16_1024", num_classes=1000, drop_path_rate=0.5
)
fine_tune(1024, "iwin_base_patch4_window7_224")
train.output_dir = "./output/iwin_b_1024_imagenet1k"
