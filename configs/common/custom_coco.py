"""Data of your own in COCO format, and a training for it: all of a config but the model.

The paths are the only overrides needed: dataset.train_json, dataset.train_images,
dataset.test_json and dataset.test_images. The classes follow from the json.
"""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.data.coco import register_coco

from .data.coco_instance import dataloader
from .optim import AdamW as optimizer
from .schedules import cosine_schedule
from .train import train

dataset = {
    "train_json": "???",  # annotations in COCO format
    "train_images": "???",  # the folder that the json's file names start from
    "test_json": "???",
    "test_images": "???",
}

dataloader.train.dataset.names = L(register_coco)(
    name="custom_train", json_file="${dataset.train_json}", image_root="${dataset.train_images}"
)
dataloader.test.dataset.names = L(register_coco)(
    name="custom_test",
    json_file="${dataset.test_json}",
    image_root="${dataset.test_images}",
    same_classes_as="${dataset.train_json}",
)

dataloader.train.total_batch_size = 4
optimizer.lr = 5e-5  # the published 1e-4 is for 16 images a batch
lr_multiplier = cosine_schedule()
train.max_iter = 10000
train.eval_period = 1000
train.checkpointer.period = 1000
