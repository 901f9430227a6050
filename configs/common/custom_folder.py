"""Images and label images of your own, and a training for them: all of a config but the model.

The paths are the only overrides needed: dataset.train_images, dataset.train_labels,
dataset.test_images, dataset.test_labels and dataset.classes, which the number of classes follows
from.
"""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.data.semantic_segmentation import register_folder

from .data.semantic_segmentation import dataloader
from .schedules import polynomial_schedule
from .semantic_segmentation import optimizer, train

dataset = {
    "train_images": "???",  # a folder; subfolders are searched, too
    "train_labels": "???",  # label images of the same paths, up to the suffix
    "test_images": "???",
    "test_labels": "???",
    "classes": "???",  # a text file: the names of the classes, one a line
    "num_classes": None,  # where there are no names: with classes=None
    "reduce_zero_label": False,  # True, as in ADE20K: 0 is no class, 1 is the first one
    "ignore_value": 255,  # of pixels that belong to no class
    "accept_palette": False,  # True, as in Pascal VOC: the numbers of a palette's colours
    "label_suffix": None,  # such as _mask.png, where that is more than .png
}


def _register(split):
    settings = ("classes", "num_classes", "reduce_zero_label", "ignore_value", "accept_palette")
    return L(register_folder)(
        name=f"custom_{split}",
        images=f"${{dataset.{split}_images}}",
        labels=f"${{dataset.{split}_labels}}",
        label_suffix="${dataset.label_suffix}",
        **{name: f"${{dataset.{name}}}" for name in settings},
    )


dataloader.train.dataset.names = _register("train")
dataloader.test.dataset.names = _register("test")

dataloader.train.total_batch_size = 4
optimizer.lr = 3e-5  # the published 6e-5 is for 16 crops a batch
train.max_iter = 20_000
lr_multiplier = polynomial_schedule(train.max_iter)
train.eval_period = 2000
train.checkpointer.period = 2000
