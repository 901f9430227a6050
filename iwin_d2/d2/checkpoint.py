"""The door to detectron2.checkpoint."""

from .framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.checkpoint import (
        Checkpointer,
        DetectionCheckpointer,
        PeriodicCheckpointer,
    )
else:
    from ..native.checkpoint import (
        Checkpointer,
        DetectionCheckpointer,
        PeriodicCheckpointer,
    )

__all__ = [
    "Checkpointer",
    "DetectionCheckpointer",
    "PeriodicCheckpointer",
]
