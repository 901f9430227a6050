"""As custom_coco.py, for small models that learn from scratch on a CPU, at about 300 px."""

from .custom_coco import dataloader, dataset, optimizer, train
from .schedules import cosine_schedule

_flip, _scales = dataloader.train.mapper.augmentations
dataloader.train.mapper.augmentations = [_flip, _scales.augmentations[0][0]]
dataloader.train.mapper.augmentations[1].update(short_edge_length=[256, 288, 320], max_size=512)
dataloader.test.mapper.augmentations[0].update(short_edge_length=288, max_size=512)
dataloader.train.num_workers = 1
dataloader.test.num_workers = 1

optimizer.lr = 1e-3
train.clip_grad = 5.0
lr_multiplier = cosine_schedule()
train.max_iter = 1000
train.eval_period = 500
train.checkpointer.period = 500
