"""Iwin-S on Kinetics-400, 32x224x224: top-1 80.0 %, top-5 94.1 % as published.

The published ImageNet-1K classifier of size S has other attention heads than every video model, so
training starts from scratch unless train.init_checkpoint names weights with 3, 6, 12, 24 heads.
"""

from .iwin_t_kinetics400 import dataloader, dataset, lr_multiplier, model, optimizer, train

model.backbone.depths = [2, 2, 18, 2]
train.accumulation_steps = 8
train.init_checkpoint = ""
train.output_dir = "./output/iwin_s_kinetics400"
