"""custom_coco_small.py's data and training with a model of one parameter: loads in a moment."""

import tiny_detector

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.data.coco import num_coco_classes, register_coco

from ...configs.common.data.coco_instance import dataloader
from ...configs.common.optim import AdamW as optimizer
from ...configs.common.schedules import cosine_schedule
from ...configs.common.train import train

dataset = {"train_json": "???", "train_images": "???", "test_json": "???", "test_images": "???"}

dataloader.train.dataset.names = L(register_coco)(
    name="tiny_train", json_file="${dataset.train_json}", image_root="${dataset.train_images}"
)
dataloader.test.dataset.names = L(register_coco)(
    name="tiny_test",
    json_file="${dataset.test_json}",
    image_root="${dataset.test_images}",
    same_classes_as="${dataset.train_json}",
)
_flip, _scales = dataloader.train.mapper.augmentations
dataloader.train.mapper.augmentations = [_flip, _scales.augmentations[0][0]]
dataloader.train.mapper.augmentations[1].update(short_edge_length=[48, 64], max_size=96)
dataloader.test.mapper.augmentations[0].update(short_edge_length=64, max_size=96)
dataloader.train.update(num_workers=0, total_batch_size=2)
dataloader.test.num_workers = 0

model = L(tiny_detector.TinyDetector)(
    num_classes=L(num_coco_classes)(json_file="${dataset.train_json}")
)
optimizer.lr = 1e-3
lr_multiplier = cosine_schedule()
train.update(max_iter=1, device="cpu")
