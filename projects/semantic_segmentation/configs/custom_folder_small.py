"""A small UPerNet that learns from scratch, on a CPU, on your own images and label images.

Images of about 300 px. The overrides are those of custom_folder.py.
"""

from ....configs.common.custom_folder_small import (
    dataloader,
    dataset,
    lr_multiplier,
    optimizer,
    train,
)
from ....configs.common.models.small_upernet import make_small
from .custom_folder import model

make_small(model)
train.output_dir = "./output/upernet_custom_folder_small"
