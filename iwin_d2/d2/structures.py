"""The door to detectron2.structures."""

from .framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.structures import (
        BitMasks,
        Boxes,
        BoxMode,
        ImageList,
        Instances,
        PolygonMasks,
        pairwise_iou,
        polygons_to_bitmask,
    )
else:
    from ..native.structures import (
        BitMasks,
        Boxes,
        BoxMode,
        ImageList,
        Instances,
        PolygonMasks,
        pairwise_iou,
        polygons_to_bitmask,
    )

__all__ = [
    "BitMasks",
    "BoxMode",
    "Boxes",
    "ImageList",
    "Instances",
    "PolygonMasks",
    "pairwise_iou",
    "polygons_to_bitmask",
]
