"""Iwin-B on ImageNet-1K, trained on for 30 epochs at 384 pixels: top-1 84.9 % as published."""

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
    name="iwin_base_patch4_window12_384", num_classes=1000, drop_path_rate=0.5
)
fine_tune(384, "iwin_base_patch4_window7_224")
train.output_dir = "./output/iwin_b_384_imagenet1k"
