"""As custom_folder.py, for small models that learn from scratch on a CPU, at about 300 px."""

from .custom_folder import dataloader, dataset, optimizer, train
from .data.semantic_segmentation import use_sizes
from .schedules import cosine_schedule

use_sizes(dataloader, scale=(1024, 288), crop=(256, 256), short_side=288, long_side=1024)
dataloader.train.num_workers = 1
dataloader.test.num_workers = 1

optimizer.lr = 1e-3
train.clip_grad = 5.0
lr_multiplier = cosine_schedule()
train.max_iter = 1000
train.eval_period = 500
train.checkpointer.period = 500
