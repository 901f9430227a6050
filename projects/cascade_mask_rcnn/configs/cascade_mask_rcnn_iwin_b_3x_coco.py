"""Cascade Mask R-CNN, Iwin-B, 36 epochs of COCO (a published config without a published AP)."""

from ....configs.common.schedules import coco_schedule
from .cascade_mask_rcnn_iwin_b_1x_coco import dataloader, model, optimizer, train

train.max_iter, lr_multiplier = coco_schedule(epochs=36, steps=[27, 33])
train.output_dir = "./output/cascade_mask_rcnn_iwin_b_3x_coco"
