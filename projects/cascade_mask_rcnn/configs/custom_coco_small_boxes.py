"""The small cascade from scratch, on a CPU, on your own data in COCO format without masks.

The overrides are those of custom_coco.py.
"""

from .custom_coco_small import dataloader, dataset, lr_multiplier, model, optimizer, train

model.roi_heads.update(mask_in_features=None, mask_pooler=None, mask_heads=None)
dataloader.train.mapper.update(use_instance_mask=False, recompute_boxes=False)
train.output_dir = "./output/custom_coco_small_boxes"
