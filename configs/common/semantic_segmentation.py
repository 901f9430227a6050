"""The published recipe of semantic segmentation: all of a config but model and data.

160,000 iterations of 16 crops: AdamW at 6e-5 with weight decay 0.01 but for the backbone's
LayerNorms, 1500 iterations of warm-up, then a straight line to 0; no mixed precision.
"""

from .optim import AdamW as optimizer
from .schedules import polynomial_schedule
from .train import train

optimizer.update(lr=6e-5, weight_decay=0.01)
# The backbone of a segmenter stands under no FPN. The norms of its heads are called "bn" in the
# published code, and do decay.
optimizer.params.within = "backbone."

train.max_iter = 160_000
lr_multiplier = polynomial_schedule(train.max_iter)
train.eval_period = 16_000
train.checkpointer.period = 16_000
# Several scales and flip, where they are asked for: as published.
train.test_time_augmentation.scales = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
