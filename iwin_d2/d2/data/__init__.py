"""The door to detectron2.data."""

from ..framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.data import (
        DatasetCatalog,
        DatasetMapper,
        MetadataCatalog,
        build_detection_test_loader,
        build_detection_train_loader,
        get_detection_dataset_dicts,
    )
    from detectron2.data.catalog import Metadata
    from detectron2.data.common import AspectRatioGroupedDataset, DatasetFromList, MapDataset
else:
    from ...native.data import (
        AspectRatioGroupedDataset,
        DatasetCatalog,
        DatasetFromList,
        DatasetMapper,
        MapDataset,
        Metadata,
        MetadataCatalog,
        build_detection_test_loader,
        build_detection_train_loader,
        get_detection_dataset_dicts,
    )

__all__ = [
    "AspectRatioGroupedDataset",
    "DatasetCatalog",
    "DatasetFromList",
    "DatasetMapper",
    "MapDataset",
    "Metadata",
    "MetadataCatalog",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "get_detection_dataset_dicts",
]
