"""The door to detectron2.data."""

from ..framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.data import (
        DatasetCatalog,
        DatasetMapper,
        MetadataCatalog,
        build_batch_data_loader,
        build_detection_test_loader,
        build_detection_train_loader,
        get_detection_dataset_dicts,
        print_instances_class_histogram,
    )
    from detectron2.data.build import (
        filter_images_with_only_crowd_annotations,
        trivial_batch_collator,
        worker_init_reset_seed,
    )
    from detectron2.data.catalog import (
        Metadata,
    )
    from detectron2.data.common import (
        AspectRatioGroupedDataset,
        DatasetFromList,
        MapDataset,
        ToIterableDataset,
    )
else:
    from ...native.data import (
        DatasetCatalog,
        DatasetMapper,
        MetadataCatalog,
        build_batch_data_loader,
        build_detection_test_loader,
        build_detection_train_loader,
        get_detection_dataset_dicts,
        print_instances_class_histogram,
    )
    from ...native.data.build import (
        filter_images_with_only_crowd_annotations,
        trivial_batch_collator,
        worker_init_reset_seed,
    )
    from ...native.data.catalog import (
        Metadata,
    )
    from ...native.data.common import (
        AspectRatioGroupedDataset,
        DatasetFromList,
        MapDataset,
        ToIterableDataset,
    )

__all__ = [
    "AspectRatioGroupedDataset",
    "DatasetCatalog",
    "DatasetFromList",
    "DatasetMapper",
    "MapDataset",
    "Metadata",
    "MetadataCatalog",
    "ToIterableDataset",
    "build_batch_data_loader",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "filter_images_with_only_crowd_annotations",
    "get_detection_dataset_dicts",
    "print_instances_class_histogram",
    "trivial_batch_collator",
    "worker_init_reset_seed",
]
