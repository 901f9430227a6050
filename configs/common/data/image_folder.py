"""Images in class folders, augmented as in the published recipe, at 224 pixels.

The folders are the only overrides needed: dataset.train and dataset.test. Names and number of the
classes are those of the folders in dataset.train.
"""

from torchvision.transforms import v2

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.data import build_detection_test_loader
from iwin_d2.data.classification.augmentations import NoisyRandAugment, RandomErasing
from iwin_d2.data.classification.evaluator import ClassificationEvaluator
from iwin_d2.data.classification.image_folder import image_folder_classes, load_image_folder
from iwin_d2.data.classification.image_mapper import ImageMapper
from iwin_d2.data.loader import build_train_loader

_BICUBIC = 3  # Pillow's number, which torchvision takes, too

dataset = {
    "train": "???",  # a folder for each class, with its images
    "test": "???",  # the same, of other images
}

dataloader = {
    # ImageNet statistics in RGB order, 0 to 255.
    "pixel_mean": [123.675, 116.28, 103.53],
    "pixel_std": [58.395, 57.12, 57.375],
    "train": L(build_train_loader)(
        dataset=L(load_image_folder)(root="${dataset.train}"),
        mapper=L(ImageMapper)(
            augmentations=[
                L(v2.RandomResizedCrop)(
                    size=[224, 224], scale=[0.08, 1.0], interpolation=_BICUBIC, antialias=True
                ),
                L(v2.RandomHorizontalFlip)(),
                L(NoisyRandAugment)(magnitude=9.0, deviation=0.5),
                L(RandomErasing)(p=0.25),
            ]
        ),
        total_batch_size=1024,
        aspect_ratio_grouping=False,
        num_workers=8,
        max_bad_images=0,  # how many images that cannot be read may be left out
        pin_memory=True,
    ),
    "test": L(build_detection_test_loader)(
        dataset=L(load_image_folder)(root="${dataset.test}", same_classes_as="${dataset.train}"),
        mapper=L(ImageMapper)(
            augmentations=[
                L(v2.Resize)(size=[256], interpolation=_BICUBIC, antialias=True),
                L(v2.CenterCrop)(size=[224, 224]),
            ]
        ),
        batch_size=32,
        num_workers=8,
    ),
    "evaluator": L(ClassificationEvaluator)(
        class_names=L(image_folder_classes)(root="${dataset.train}")
    ),
}


def set_side(dataloader, side):
    """Have images of another size: as published, resized to it for the test, not cropped."""
    dataloader["train"].mapper.augmentations[0].size = [side, side]
    dataloader["test"].mapper.augmentations = [
        L(v2.Resize)(size=[side, side], interpolation=_BICUBIC, antialias=True)
    ]
