"""Cascade Mask R-CNN, Iwin-B, 12 epochs of COCO (this project's; published is only the 3x)."""

from .cascade_mask_rcnn_iwin_t_1x_coco import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.update(
    embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32], drop_path_rate=0.3
)
train.output_dir = "./output/cascade_mask_rcnn_iwin_b_1x_coco"
