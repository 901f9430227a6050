"""The door to detectron2.data.samplers."""

from ..framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.data.samplers import (
        InferenceSampler,
        RepeatFactorTrainingSampler,
        TrainingSampler,
    )
else:
    from ...native.data.samplers import (
        InferenceSampler,
        RepeatFactorTrainingSampler,
        TrainingSampler,
    )

__all__ = [
    "InferenceSampler",
    "RepeatFactorTrainingSampler",
    "TrainingSampler",
]
