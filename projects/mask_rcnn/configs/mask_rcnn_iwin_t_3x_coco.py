"""Mask R-CNN, Iwin-T, 36 epochs of COCO: 44.7 box AP, 40.9 mask AP as published."""

from ....configs.common.schedules import coco_schedule
from .mask_rcnn_iwin_t_1x_coco import dataloader, model, optimizer, train

model.backbone.bottom_up.drop_path_rate = 0.2
train.max_iter, lr_multiplier = coco_schedule(epochs=36, steps=[27, 33])
train.output_dir = "./output/mask_rcnn_iwin_t_3x_coco"
