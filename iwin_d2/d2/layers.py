"""The door to detectron2.layers."""

from .framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.layers import (
        Conv2d,
        ConvTranspose2d,
        Linear,
        ROIAlign,
        ShapeSpec,
        batched_nms,
        cat,
        cross_entropy,
        get_norm,
        nonzero_tuple,
        paste_masks_in_image,
    )
else:
    from ..native.layers import (
        Conv2d,
        ConvTranspose2d,
        Linear,
        ROIAlign,
        ShapeSpec,
        batched_nms,
        cat,
        cross_entropy,
        get_norm,
        nonzero_tuple,
        paste_masks_in_image,
    )

__all__ = [
    "Conv2d",
    "ConvTranspose2d",
    "Linear",
    "ROIAlign",
    "ShapeSpec",
    "batched_nms",
    "cat",
    "cross_entropy",
    "get_norm",
    "nonzero_tuple",
    "paste_masks_in_image",
]
