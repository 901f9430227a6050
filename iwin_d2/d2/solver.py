"""The door to detectron2.solver."""

from .framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.solver import (
        LRMultiplier,
        WarmupParamScheduler,
        get_default_optimizer_params,
    )
else:
    from ..native.solver import (
        LRMultiplier,
        WarmupParamScheduler,
        get_default_optimizer_params,
    )

__all__ = [
    "LRMultiplier",
    "WarmupParamScheduler",
    "get_default_optimizer_params",
]
