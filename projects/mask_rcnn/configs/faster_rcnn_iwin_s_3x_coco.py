"""Faster R-CNN, Iwin-S, 36 epochs of COCO, boxes alone (this project's own)."""

from ....configs.common.boxes_only import leave_out_masks
from .mask_rcnn_iwin_s_3x_coco import dataloader, lr_multiplier, model, optimizer, train

leave_out_masks(model, dataloader)
train.output_dir = "./output/faster_rcnn_iwin_s_3x_coco"
