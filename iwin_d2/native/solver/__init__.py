"""Counterparts of detectron2.solver."""

from .lr_scheduler import LRMultiplier, WarmupParamScheduler
from .optimizer import get_default_optimizer_params

__all__ = ["LRMultiplier", "WarmupParamScheduler", "get_default_optimizer_params"]
