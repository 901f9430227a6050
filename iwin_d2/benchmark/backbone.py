"""Backbone T against the published formulation of the same and other backbones of its size."""

from torch import Tensor, nn
from torchvision.models import convnext_tiny, swin_t

from ..modeling import iwin_tiny
from ..ops import use_backend
from .models import OURS, PUBLISHED, Goals, compare
from .published import use_published_blocks

__all__ = ["MODELS", "benchmark_backbone"]

PLAIN = "plain PyTorch: scaled_dot_product_attention, strided views"
SWIN = "torchvision swin_t features"
CONVNEXT = "torchvision convnext_tiny features"


def benchmark_backbone(rounds: int = 9) -> list[str]:
    """Compare inference at the detector's and the classifier's size, and a training pass."""
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
