"""The door to detectron2.data.samplers."""

from ..framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.data.samplers import (
        InferenceSampler,
        TrainingSampler,
    )
else:
    from ...native.data.samplers import (
        InferenceSampler,
        TrainingSampler,
    )

__all__ = [
    "InferenceSampler",
    "TrainingSampler",
]
