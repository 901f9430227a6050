"""Iwin-T on Kinetics-600: as on Kinetics-400, 600 classes."""

from .iwin_t_kinetics400 import dataloader, dataset, lr_multiplier, model, optimizer, train

model.num_classes = 600
dataset.num_classes = 600
train.output_dir = "./output/iwin_t_kinetics600"
