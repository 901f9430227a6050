"""Layers and box and mask operations that the models are built from."""

from .batch_norm import FrozenBatchNorm2d, LayerNorm, get_norm
from .blocks import CNNBlockBase
from .mask_ops import paste_masks_in_image
from .roi_align import ROIAlign, batched_nms
from .shape_spec import ShapeSpec
from .wrappers import Conv2d, ConvTranspose2d, Linear, cat, cross_entropy, nonzero_tuple

__all__ = [
    "CNNBlockBase",
    "Conv2d",
    "ConvTranspose2d",
    "FrozenBatchNorm2d",
    "LayerNorm",
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
