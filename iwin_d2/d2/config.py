"""The door to detectron2.config."""

from .framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.config import (
        LazyCall,
        LazyConfig,
        instantiate,
    )
else:
    from ..native.config import (
        LazyCall,
        LazyConfig,
        instantiate,
    )

__all__ = [
    "LazyCall",
    "LazyConfig",
    "instantiate",
]
