"""Mask R-CNN, Iwin-S, 12 epochs of COCO: 43.7 box AP, 40.0 mask AP as published."""

from .mask_rcnn_iwin_t_1x_coco import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.update(depths=[2, 2, 18, 2], drop_path_rate=0.2)
train.output_dir = "./output/mask_rcnn_iwin_s_1x_coco"
