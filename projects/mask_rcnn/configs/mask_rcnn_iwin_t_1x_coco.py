"""Mask R-CNN, Iwin-T, 12 epochs of COCO: 42.2 box AP, 38.9 mask AP as published."""

from ....configs.common.data.coco_instance import dataloader
from ....configs.common.models.mask_rcnn_iwin import model
from ....configs.common.optim import AdamW as optimizer
from ....configs.common.schedules import coco_schedule
from ....configs.common.train import train

train.max_iter, lr_multiplier = coco_schedule(epochs=12, steps=[8, 11])
train.amp.enabled = True
train.output_dir = "./output/mask_rcnn_iwin_t_1x_coco"
