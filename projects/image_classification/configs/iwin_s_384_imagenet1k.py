"""Iwin-S on ImageNet-1K, trained on for 30 epochs at 384 pixels: top-1 84.3 % as published."""

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
    name="iwin_small_patch4_window12_384", num_classes=1000, drop_path_rate=0.3
)
fine_tune(384, "iwin_small_patch4_window7_224")
train.output_dir = "./output/iwin_s_384_imagenet1k"
