"""Augmentations (random choices) and the transforms (deterministic) that they give.

The base of transforms, and most of them, are fvcore's. The door lists all names.
"""
# ruff: noqa: F401, F403

from fvcore.transforms.transform import (
    BlendTransform,
    HFlipTransform,
    NoOpTransform,
    PadTransform,
    Transform,
    TransformList,
    VFlipTransform,
)

from .augmentation import *
from .augmentation_impl import *
from .transform import *
