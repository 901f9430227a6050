"""A small Iwin that learns from scratch, on a CPU, on your own videos: 8 frames of 64 pixels.

The overrides are those of custom_list.py.
"""

from .custom_list import dataloader, dataset, lr_multiplier, model, optimizer, train

model.backbone.update(
    embed_dim=32,
    depths=[1, 1, 2, 1],
    num_heads=[1, 2, 4, 8],
    window_size=4,
    num_frames=8,
    drop_path_rate=0.0,
)
model.update(dropout=0.1, clips_at_once=None)
_train, _test = dataloader.train.mapper, dataloader.test.mapper
_train.sampler.update(num_frames=8, stride=2)
_train.resize.size = 72
_train.transforms[0].update(size=[64, 64], scale=[0.5, 1.0])
_test.sampler.update(num_frames=8, stride=2, num_clips=2)
_test.transforms[0].size = 64
dataloader.train.total_batch_size = 16
dataloader.train.num_workers = 1
dataloader.test.num_workers = 1

optimizer.lr = 5e-4
optimizer.params.backbone_factor = 1.0
train.clip_grad = 5.0
train.amp.enabled = False
train.output_dir = "./output/custom_list_small"
