"""Faster R-CNN, Iwin-T, on your own data in COCO format without masks.

The overrides are those of custom_coco.py.
"""

from ....configs.common.boxes_only import leave_out_masks
from .custom_coco import dataloader, dataset, lr_multiplier, model, optimizer, train

leave_out_masks(model, dataloader)
train.output_dir = "./output/mask_rcnn_custom_coco_boxes"
