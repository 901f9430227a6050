"""Iwin-T on your own videos.

The paths are the only overrides needed; the number of classes follows from the labels in the
training list, or from dataset.classes:

    tools/train_classifier.py --config-file projects/video_classification/configs/custom_list.py
        dataset.train_list=FILE dataset.test_list=FILE
"""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.data.video.records import num_video_classes

from .iwin_t_kinetics400 import dataloader, dataset, lr_multiplier, model, optimizer, train

dataset.num_classes = None
model.num_classes = L(num_video_classes)(
    list_file="${dataset.train_list}",
    classes="${dataset.classes}",
    num_classes="${dataset.num_classes}",
)
dataloader.train.total_batch_size = 8
train.accumulation_steps = 1
optimizer.lr = 1e-4
train.init_checkpoint = ""
train.output_dir = "./output/custom_list"
