"""Semantic FPN, Iwin-T, 160,000 iterations of ADE20K, 512x512 (this project's own)."""

from ....configs.common.data.ade20k import dataloader
from ....configs.common.models.semantic_fpn_iwin import model
from ....configs.common.semantic_segmentation import lr_multiplier, optimizer, train

optimizer.params.within = "backbone.bottom_up."
train.output_dir = "./output/semantic_fpn_iwin_t_512_160k_ade20k"
