"""Backbone T against the published formulation of the same and other backbones of its size."""

from collections.abc import Iterator

from torch import Tensor, nn
from torchvision.models import convnext_tiny, swin_t

from ..modeling import iwin_tiny
from ..ops import use_backend
from . import steps
from .models import OURS, PUBLISHED, Goals, compare
from .published import use_published_blocks
from .target import CPU, Gpu, Target

__all__ = ["MODELS", "TRAINED", "benchmark_backbone"]

PLAIN = "plain PyTorch: scaled_dot_product_attention, strided views"
SWIN = "torchvision swin_t features"
CONVNEXT = "torchvision convnext_tiny features"


def benchmark_backbone(rounds: int = 9, target: Target = CPU) -> Iterator[str]:
    """Compare inference at the detector's and the classifier's size, and training."""
    return iter(_on_cpu(rounds)) if not target.is_gpu else _on_gpu(rounds, target)


def _on_cpu(rounds: int) -> list[str]:
    return [
        *compare(
            "backbone T, inference, 1x800x1216",
            MODELS,
            (1, 3, 800, 1216),
            Goals(faster={PUBLISHED: "at least 1.6", SWIN: "at least 1.25"}, share="at least 70 %"),
            rounds,
        ),
        *compare(
            "backbone T, inference, 8x224x224",
            MODELS,
            (8, 3, 224, 224),
            Goals(faster={SWIN: "above 1", CONVNEXT: "above 1"}),
            rounds,
        ),
        *compare(
            "backbone T, forward + backward, 1x512x512",
            {name: make for name, make in MODELS.items() if name != CONVNEXT},
            (1, 3, 512, 512),
            Goals(faster={PUBLISHED: "at least 1.5"}, memory={PUBLISHED: "at most 0.7"}),
            rounds,
            backward=True,
        ),
    ]


def _on_gpu(rounds: int, target: Gpu) -> Iterator[str]:
    batch = (64, 3, 224, 224)
    title = "backbone T, training step, 64x224x224"
    # What may take long comes last.
    yield from steps.compare(f"{title}, eager", TRAINED, batch, Goals(), rounds, target)
    maps = {name: MODELS[name] for name in (OURS, PUBLISHED, SWIN, CONVNEXT)}
    image = (1, 3, 800, 1216)
    title_of_maps = "backbone T, inference, 1x800x1216, eager"
    yield from steps.compare(title_of_maps, maps, image, Goals(), rounds, target, training=False)
    yield from steps.compare(
        f"{title}, torch.compile",
        {name: TRAINED[name] for name in (OURS, SWIN)},
        batch,
        Goals(faster={SWIN: "at least 1.3"}),
        rounds,
        target,
        compile_them=True,
    )


class _PlainPyTorch(nn.Module):
    """A model on the plain-PyTorch path of every operator."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute what the model does."""
        with use_backend("reference"):
            return self.model(images)


def _plain() -> nn.Module:
    return _PlainPyTorch(iwin_tiny())


def _published() -> nn.Module:
    return use_published_blocks(iwin_tiny())


def _swin() -> nn.Module:
    return swin_t().features


def _convnext() -> nn.Module:
    return convnext_tiny().features


MODELS = {
    OURS: iwin_tiny,
    PUBLISHED: _published,
    PLAIN: _plain,
    SWIN: _swin,
    CONVNEXT: _convnext,
}

# With stochastic depth, as they are trained: swin_t has as much of it.
_DROP_PATH = 0.2


def _trained() -> nn.Module:
    return iwin_tiny(drop_path_rate=_DROP_PATH)


def _published_trained() -> nn.Module:
    return use_published_blocks(_trained())


TRAINED = {OURS: _trained, PUBLISHED: _published_trained, SWIN: _swin}
