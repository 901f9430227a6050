"""Cascade Mask R-CNN, Iwin-S, 12 epochs of COCO (a published config without a published AP)."""

from .cascade_mask_rcnn_iwin_t_1x_coco import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.depths = [2, 2, 18, 2]
train.output_dir = "./output/cascade_mask_rcnn_iwin_s_1x_coco"
