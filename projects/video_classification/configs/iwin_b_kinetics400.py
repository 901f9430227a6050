"""Iwin-B on Kinetics-400 by the recipe of Iwin-S; no such model is published."""

from .iwin_s_kinetics400 import dataloader, dataset, lr_multiplier, model, optimizer, train

model.backbone.update(embed_dim=128, num_heads=[4, 8, 16, 32])
train.init_checkpoint = "iwin_base_patch4_window7_224"
train.output_dir = "./output/iwin_b_kinetics400"
