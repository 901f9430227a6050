"""Video backbone T: ours, as published, and torchvision's nearest; the classifier's training."""

from collections.abc import Iterator
from functools import partial

from torch import nn
from torchvision.models.video import swin3d_t

from ..modeling import IwinTransformer3D, VideoClassifier
from . import steps, whole_models
from .classifier import build
from .models import OURS, PUBLISHED, Goals, Make, compare
from .published import use_published_blocks
from .target import CPU, Target

__all__ = ["benchmark_video"]

SWIN3D = "torchvision swin3d_t features"
CLIP = (1, 3, 32, 224, 224)
_CLASSES = 400
_DROP_PATH = 0.1  # as torchvision's


def benchmark_video(rounds: int = 5, target: Target = CPU) -> Iterator[str]:
    """Compare inference and training on a clip of 32 frames; on a GPU, training on eight."""
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
        CLIP,
        Goals(
            faster={PUBLISHED: "at least 3", SWIN3D: "at least 1.5"},
            memory={PUBLISHED: "at most 0.5"},
        ),
        rounds,
    )
    yield from compare_training(CLASSIFIERS, CLIP, rounds)


def compare_training(makers: dict[str, Make], shape: tuple[int, ...], rounds: int) -> list[str]:
    """Time and memory of a classifier's training iteration on clips; the first is ours."""
    builds = {name: partial(build, make, shape, True) for name, make in makers.items()}
    title = f"video classifier T, training iteration, {'x'.join(map(str, (shape[0], *shape[2:])))}"
    return whole_models.compare(title, builds, rounds, items=(shape[0], "clips/s"))


def _classifier(use_checkpoint: bool) -> nn.Module:
    backbone = IwinTransformer3D(drop_path_rate=_DROP_PATH, use_checkpoint=use_checkpoint)
    return VideoClassifier(backbone, num_classes=_CLASSES, dropout=0.5)


def _swin3d_classifier() -> nn.Module:
    return swin3d_t(num_classes=_CLASSES)


def _published() -> nn.Module:
    return use_published_blocks(IwinTransformer3D())


def _swin3d() -> nn.Module:
    model = swin3d_t()
    return nn.Sequential(model.patch_embed, model.pos_drop, model.features, model.norm)


MODELS = {OURS: IwinTransformer3D, PUBLISHED: _published, SWIN3D: _swin3d}
CLASSIFIERS = {
    "ours: Iwin-T": partial(_classifier, use_checkpoint=False),
    "ours with activation checkpointing": partial(_classifier, use_checkpoint=True),
    "torchvision swin3d_t": _swin3d_classifier,
}
