"""The small Mask R-CNN on the generated shapes of `make quickstart` (iwin_d2/data/shapes.py)."""

from ....configs.common.quickstart import dataloader, dataset, lr_multiplier, optimizer, train
from .custom_coco_small import model

model.proposal_generator.anchor_generator.sizes = [[12], [24], [48], [96], [192]]
train.max_iter = 1000  # without normalisation in its heads it learns slower than the cascade
train.output_dir = "./output/mask_rcnn_quickstart"
