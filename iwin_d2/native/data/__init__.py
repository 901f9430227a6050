"""Data sets, augmentations and loaders. The door lists all names."""
# ruff: noqa: F401, F403

from . import datasets, detection_utils, samplers, transforms
from .build import *
from .catalog import *
from .common import *
from .dataset_mapper import DatasetMapper
