"""A small cascade that learns from scratch, on a CPU, on your own data in COCO format.

Five million parameters, images of about 300 px. The overrides are those of custom_coco.py.
"""

from ....configs.common.custom_coco_small import (
    dataloader,
    dataset,
    lr_multiplier,
    optimizer,
    train,
)
from ....configs.common.models.small_rcnn import make_small
from .custom_coco import model

make_small(model)
train.output_dir = "./output/custom_coco_small"
