"""The door to detectron2.data.datasets."""

from ..framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.data.datasets import (
        load_coco_json,
        register_coco_instances,
    )
else:
    from ...native.data.datasets import (
        load_coco_json,
        register_coco_instances,
    )

__all__ = [
    "load_coco_json",
    "register_coco_instances",
]
