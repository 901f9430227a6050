"""Iwin-T on Something-Something v2: a frame of each of 32 parts of a video, and no flip.

dataset.train_root and dataset.test_root are folders of videos, or of a folder of frames for each.
train.init_checkpoint is best a video classifier trained on Kinetics-400.
"""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.data.video.sampling import RandomSegments, SpacedSegments

from .iwin_t_kinetics400 import dataloader, dataset, lr_multiplier, model, optimizer, train

model.num_classes = 174
dataset.num_classes = 174
_crop, _flip = dataloader.train.mapper.transforms
dataloader.train.mapper.update(sampler=L(RandomSegments)(num_frames=32), transforms=[_crop])
dataloader.test.mapper.sampler = L(SpacedSegments)(num_frames=32)

train.label_smoothing = 0.1
train.init_options.classes = "new"
train.output_dir = "./output/iwin_t_something_v2"
