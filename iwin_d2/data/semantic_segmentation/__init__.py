"""Semantic segmentation: images with label images, from files to the model's input."""

from ..class_file import class_names, num_classes
from .augmentations import PadTo, RandomCropByLabels, ResizeByRatio
from .builtin import register_ade20k, register_cityscapes, register_pascal_context
from .folder import load_registered_segmentation, register_folder
from .label_format import LabelFormat
from .labels import read_label, read_record_label
from .mapper import SemSegMapper
from .photometric import PhotometricDistortion

__all__ = [
    "LabelFormat",
    "PadTo",
    "PhotometricDistortion",
    "RandomCropByLabels",
    "ResizeByRatio",
    "SemSegMapper",
    "class_names",
    "load_registered_segmentation",
    "num_classes",
    "read_label",
    "read_record_label",
    "register_ade20k",
    "register_cityscapes",
    "register_folder",
    "register_pascal_context",
]
