"""Whole classifiers, heads included: images a second of Iwin-T and of torchvision's Swin-T."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import swin_t

from ..modeling import iwin_classifier
from .whole_models import Run, compare

__all__ = ["benchmark_classifier", "build"]

OURS = "ours: Iwin-T"
SWIN = "torchvision swin_t"
_BATCH = 8
_DROP_PATH = 0.2  # as torchvision's, and in the recipe


def benchmark_classifier(rounds: int = 9, side: int = 224) -> Iterator[str]:
    """Compare inference and training iterations on eight images.

    Args:
        rounds: timings of each.
        side: of the images, in pixels.
    """
    shape = (_BATCH, 3, side, side)
    for title, training in (("inference", False), ("training iteration", True)):
        builds = {
            name: partial(build, make, shape, training)
            for name, make in ((OURS, _ours), (SWIN, _swin))
        }
        yield from compare(
            f"classifier T, {title}, {_BATCH}x{side}x{side}",
            builds,
            rounds,
            goals={SWIN: "above 1"},
            items=(_BATCH, "images/s"),
        )


def build(make: Callable[[], nn.Module], shape: tuple[int, ...], training: bool) -> Run:
    """Build a classifier; return what runs inference, or a training iteration, once.

    That gives the probabilities, or the loss before the step.

    Args:
        make: makes it; it gives logits.
        shape: of the inputs, the batch first.
        training: whether with loss, gradients and a step of AdamW.
    """
    torch.manual_seed(0)
    model = make().train(training)
    inputs = torch.randn(shape)
    if not training:
        return partial(_infer, model, inputs)
    # As little as that: an iteration more or less is to change no time.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-7)
    return partial(_train, model, inputs, torch.arange(len(inputs)), optimizer)


@torch.no_grad()
def _infer(model: nn.Module, inputs: Tensor) -> Tensor:
    return model(inputs).softmax(-1)


def _train(model: nn.Module, inputs: Tensor, labels: Tensor, optimizer) -> float:
    loss = F.cross_entropy(model(inputs), labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def _ours() -> nn.Module:
    return iwin_classifier("iwin_tiny_patch4_window7_224", drop_path_rate=_DROP_PATH)


def _swin() -> nn.Module:
    return swin_t(weights=None)
