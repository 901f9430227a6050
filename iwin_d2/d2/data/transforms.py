"""The door to detectron2.data.transforms."""

from ..framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.data.transforms import (
        AugInput,
        Augmentation,
        AugmentationList,
        CropTransform,
        HFlipTransform,
        NoOpTransform,
        PadTransform,
        RandomCrop,
        RandomFlip,
        Resize,
        ResizeShortestEdge,
        ResizeTransform,
        Transform,
        TransformList,
        VFlipTransform,
    )
else:
    from ...native.data.transforms import (
        AugInput,
        Augmentation,
        AugmentationList,
        CropTransform,
        HFlipTransform,
        NoOpTransform,
        PadTransform,
        RandomCrop,
        RandomFlip,
        Resize,
        ResizeShortestEdge,
        ResizeTransform,
        Transform,
        TransformList,
        VFlipTransform,
    )

__all__ = [
    "AugInput",
    "Augmentation",
    "AugmentationList",
    "CropTransform",
    "HFlipTransform",
    "NoOpTransform",
    "PadTransform",
    "RandomCrop",
    "RandomFlip",
    "Resize",
    "ResizeShortestEdge",
    "ResizeTransform",
    "Transform",
    "TransformList",
    "VFlipTransform",
]
