"""Iwin-S on ImageNet-1K, trained on for 30 epochs at 512 pixels: top-1 84.4 % as published."""

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
    name="iwin_small_patch4_window16_512", num_classes=1000, drop_path_rate=0.3
)
fine_tune(512, "iwin_small_patch4_window7_224")
train.output_dir = "./output/iwin_s_512_imagenet1k"
