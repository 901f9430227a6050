"""A small cascade that learns from scratch, on a CPU, on your own data in COCO format.

Five million parameters, images of about 300 px. The overrides are those of custom_coco.py.
"""

from ....configs.common.schedules import cosine_schedule
from .custom_coco import dataloader, dataset, model, optimizer, train

_CHANNELS = 64

model.backbone.bottom_up.update(embed_dim=32, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
model.backbone.out_channels = _CHANNELS
model.proposal_generator.head.in_channels = _CHANNELS
model.proposal_generator.anchor_generator.sizes = [[16], [32], [64], [128], [256]]
model.proposal_generator.update(
    batch_size_per_image=128, pre_nms_topk=(500, 300), post_nms_topk=(250, 100)
)
model.roi_heads.batch_size_per_image = 64
# One sample a bin: on a CPU, pooling with more of them takes as long as all convolutions.
model.roi_heads.box_pooler.sampling_ratio = 1
model.roi_heads.mask_pooler.sampling_ratio = 1
for _box_head in model.roi_heads.box_heads:
    _box_head.input_shape.channels = _CHANNELS
    _box_head.update(conv_dims=[_CHANNELS, _CHANNELS], fc_dims=[256])
for _box_predictor in model.roi_heads.box_predictors:
    _box_predictor.input_shape.channels = 256
for _mask_head in model.roi_heads.mask_heads:
    _mask_head.input_shape.channels = _CHANNELS
    _mask_head.conv_dims = [_CHANNELS] * 3

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
train.output_dir = "./output/custom_coco_small"
