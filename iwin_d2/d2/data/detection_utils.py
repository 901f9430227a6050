"""The door to detectron2.data.detection_utils."""

from ..framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.data.detection_utils import (
        SizeMismatchError,
        annotations_to_instances,
        check_image_size,
        filter_empty_instances,
        read_image,
        transform_instance_annotations,
    )
else:
    from ...native.data.detection_utils import (
        SizeMismatchError,
        annotations_to_instances,
        check_image_size,
        filter_empty_instances,
        read_image,
        transform_instance_annotations,
    )

__all__ = [
    "SizeMismatchError",
    "annotations_to_instances",
    "check_image_size",
    "filter_empty_instances",
    "read_image",
    "transform_instance_annotations",
]
