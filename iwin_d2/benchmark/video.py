"""Video backbone T: ours, as published, and torchvision's nearest."""

from collections.abc import Iterator

from torch import nn
from torchvision.models.video import swin3d_t

from ..modeling import IwinTransformer3D
from . import steps
from .models import OURS, PUBLISHED, Goals, compare
from .published import use_published_blocks
from .target import CPU, Target

__all__ = ["benchmark_video"]

SWIN3D = "torchvision swin3d_t features"


def benchmark_video(rounds: int = 5, target: Target = CPU) -> Iterator[str]:
    """Compare inference on a clip of 32 frames; on a GPU, training steps on eight."""
    if target.is_gpu:
        yield from steps.compare(
            "video backbone T, training step, 8x32x224x224, eager",
            MODELS,
            (8, 3, 32, 224, 224),
            Goals(faster={PUBLISHED: "at least 2"}),
            rounds,
            target,
        )
        return
    yield from compare(
        "video backbone T, inference, 1x32x224x224",
        MODELS,
        (1, 3, 32, 224, 224),
        Goals(
            faster={PUBLISHED: "at least 3", SWIN3D: "at least 1.5"},
            memory={PUBLISHED: "at most 0.5"},
        ),
        rounds,
    )


def _published() -> nn.Module:
    return use_published_blocks(IwinTransformer3D())


def _swin3d() -> nn.Module:
    model = swin3d_t()
    return nn.Sequential(model.patch_embed, model.pos_drop, model.features, model.norm)


MODELS = {OURS: IwinTransformer3D, PUBLISHED: _published, SWIN3D: _swin3d}
