"""Heads that give every pixel a class, for a `SemanticSegmentor` with any backbone."""

from .fcn import FCNHead
from .loss import SegmentationLoss, balanced_weights
from .semantic_fpn import SemanticFPNHead
from .upernet import UPerNetHead

__all__ = ["FCNHead", "SegmentationLoss", "SemanticFPNHead", "UPerNetHead", "balanced_weights"]
