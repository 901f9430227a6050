"""Families of checkpoint files, a module each: how to tell them, and how to rename their parts."""

from collections.abc import Iterable

from .imagenet import IMAGENET
from .layout import (
    Layout,
    backbone_prefixes,
    is_backbone_name,
    is_final_norm,
    is_time_embedding,
)
from .mmaction import MMACTION
from .mmdetection import MMDETECTION
from .mmsegmentation import MMSEGMENTATION
from .own import OWN

__all__ = [
    "IMAGENET",
    "OWN",
    "Layout",
    "backbone_prefixes",
    "find_layout",
    "is_backbone_name",
    "is_final_norm",
    "is_time_embedding",
]

# In the order in which they are asked; the last claims every file.
LAYOUTS = (MMDETECTION, MMSEGMENTATION, MMACTION, IMAGENET, OWN)


def find_layout(names: Iterable[str]) -> Layout:
    """The family that a file with these names belongs to."""
    names = list(names)
    return next(layout for layout in LAYOUTS if layout.claims(names))
