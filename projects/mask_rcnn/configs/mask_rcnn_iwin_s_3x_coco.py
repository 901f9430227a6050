"""Mask R-CNN, Iwin-S, 36 epochs of COCO: 45.5 box AP, 41.0 mask AP as published."""

from ....configs.common.schedules import coco_schedule
from .mask_rcnn_iwin_s_1x_coco import dataloader, model, optimizer, train

train.max_iter, lr_multiplier = coco_schedule(epochs=36, steps=[27, 33])
train.output_dir = "./output/mask_rcnn_iwin_s_3x_coco"
