"""Learning-rate schedules: linear warm-up, then steps, a cosine or a power."""

from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    MultiStepParamScheduler,
    PolynomialDecayParamScheduler,
)

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.solver import WarmupParamScheduler

# COCO train2017 has 117,266 images with objects; 16 a batch make one epoch.
COCO_EPOCH = 7330


def step_schedule(max_iter, milestones, warmup_length=500, warmup_factor=0.001):
    """Divide the learning rate by 10 at each of `milestones` (iterations)."""
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[0.1**i for i in range(len(milestones) + 1)],
            milestones=list(milestones),
            num_updates=max_iter,
        ),
        warmup_factor=warmup_factor,
        warmup_length=warmup_length / max_iter,
        warmup_method="linear",
    )


def coco_schedule(epochs, steps):
    """Return (max_iter, schedule) for COCO train2017 and 16 images a batch; `steps` in epochs."""
    max_iter = epochs * COCO_EPOCH
    return max_iter, step_schedule(max_iter, [step * COCO_EPOCH for step in steps])


def cosine_schedule(warmup_length=0.05, warmup_factor=0.01, end=0.01):
    """Warm up over the fraction `warmup_length`, then fall along a cosine to `end`.

    Relative to train.max_iter, so that overriding that alone stretches the whole schedule.
    """
    return L(WarmupParamScheduler)(
        scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=end),
        warmup_factor=warmup_factor,
        warmup_length=warmup_length,
        warmup_method="linear",
    )


def polynomial_schedule(max_iter, warmup_length=1500, warmup_factor=1e-6, power=1.0):
    """Warm up over `warmup_length` iterations, then fall to 0 as (1 - progress) ** power.

    The published segmentation recipe: a straight line to 0 at `max_iter`, the warm-up in its place.
    """
    return L(WarmupParamScheduler)(
        scheduler=L(PolynomialDecayParamScheduler)(base_value=1.0, power=power),
        warmup_factor=warmup_factor,
        warmup_length=warmup_length / max_iter,
        warmup_method="linear",
    )
