"""Cascade Mask R-CNN, Iwin-T, on your own data in COCO format.

The paths are the only overrides needed; class names and every num_classes follow from the json:

    tools/lazyconfig_train_net.py --config-file projects/cascade_mask_rcnn/configs/custom_coco.py
        dataset.train_json=JSON dataset.train_images=FOLDER
        dataset.test_json=JSON dataset.test_images=FOLDER
"""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.data.coco import num_coco_classes, register_coco

from ....configs.common.data.coco_instance import dataloader
from ....configs.common.models.cascade_mask_rcnn_iwin import model
from ....configs.common.optim import AdamW as optimizer
from ....configs.common.schedules import cosine_schedule
from ....configs.common.train import train

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
model.roi_heads.num_classes = L(num_coco_classes)(json_file="${dataset.train_json}")

dataloader.train.total_batch_size = 4
optimizer.lr = 5e-5  # the published 1e-4 is for 16 images a batch
lr_multiplier = cosine_schedule()
train.max_iter = 10000
train.eval_period = 1000
train.checkpointer.period = 1000
train.output_dir = "./output/custom_coco"
