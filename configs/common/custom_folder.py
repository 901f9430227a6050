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

# What the settings say of label files: register_folder and docs/datasets.md.
_SETTINGS = {
    "classes": "???",  # a text file: the names of the classes, one a line
    "num_classes": None,  # where there are no names: with classes=None
    "reduce_zero_label": False,  # True, as in ADE20K: 0 is no class, 1 is the first one
    "ignore_value": 255,  # of pixels that belong to no class
    "accept_palette": False,  # True, as in Pascal VOC: the numbers of a palette's colours
    "label_values": None,  # a mapping: value in the files -> class number, or ignore_value
    "image_suffix": None,  # what file names end in, where that is more than .jpg or .png,
    "label_suffix": None,  # such as _mask.png
}
dataset = {
    "train_images": "???",  # a folder; subfolders are searched, too
    "train_labels": "???",  # label images of the same paths, up to the suffix
    "train_list": None,  # a text file of the images to take; all of them without
    "test_images": "???",
    "test_labels": "???",
    "test_list": None,
    **_SETTINGS,
}


def _register(split):
    return L(register_folder)(
        name=f"custom_{split}",
        images=f"${{dataset.{split}_images}}",
        labels=f"${{dataset.{split}_labels}}",
        list_file=f"${{dataset.{split}_list}}",
        **{name: f"${{dataset.{name}}}" for name in _SETTINGS},
    )


dataloader.train.dataset.names = _register("train")
dataloader.test.dataset.names = _register("test")

dataloader.train.total_batch_size = 4
optimizer.lr = 3e-5  # the published 6e-5 is for 16 crops a batch
train.max_iter = 20_000
lr_multiplier = polynomial_schedule(train.max_iter)
train.eval_period = 2000
train.checkpointer.period = 2000
