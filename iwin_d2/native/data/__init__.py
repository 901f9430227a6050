"""Data sets, augmentations and loaders. The door lists all names."""
# ruff: noqa: F401

from .build import (
    AspectRatioGroupedDataset,
    DatasetFromList,
    MapDataset,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from .catalog import DatasetCatalog, Metadata, MetadataCatalog
from .dataset_mapper import DatasetMapper
from .datasets import load_coco_json  # the import registers COCO's own data sets
