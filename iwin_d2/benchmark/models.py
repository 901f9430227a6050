"""Compare models that run in turn: time, share of the machine's GEMM rate, peak memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..ops import use_backend
from .rates import time_with_rates
from .table import against, table
from .timing import peak_memory

__all__ = ["OURS", "PUBLISHED", "Goals", "Make", "build", "compare", "count_flops", "maps_of"]

OURS = "ours"
PUBLISHED = "published formulation"
Make = Callable[[], nn.Module]


@dataclass(frozen=True)
class Goals:
    """What is to be reached: factors over the others' times, a share of the GEMM rate, memory."""

    faster: dict[str, str] = field(default_factory=dict)
    share: str | None = None
    memory: dict[str, str] = field(default_factory=dict)


def compare(
    title: str,
    models: dict[str, Make],
    shape: tuple[int, ...],
    goals: Goals,
    rounds: int,
    backward: bool = False,
) -> list[str]:
    """Measure inference, or a forward and a backward pass, on inputs of `shape`.

    Args:
        title: of the table.
        models: what makes each model, picklable; OURS is the first.
        shape: of the inputs.
        goals: to stand beside the figures.
        rounds: timings of each.
        backward: whether to time the gradients of all parameters, too.

    Returns:
        the lines of a table.
    """
    builds = {name: partial(build, make, shape, backward) for name, make in models.items()}
    times, rates = time_with_rates({name: made() for name, made in builds.items()}, rounds)
    peaks = {name: peak_memory(made) for name, made in builds.items()}
    # A backward pass has two products for each of the forward pass.
    passes = 3 if backward else 1
    flops = {name: passes * count_flops(make, shape) for name, make in models.items()}
    rows = [
        (
            name,
            f"{1000 * seconds:.0f}",
            against(f"{ratio:.2f}", goals.faster.get(name)),
            against(
                f"{100 * flops[name] / seconds / rates.gemm:.0f} %",
                goals.share if name == OURS else None,
            ),
            f"{peaks[name]:.0f}",
            against(f"{peaks[OURS] / peaks[name]:.2f}", goals.memory.get(name)),
        )
        for name, (seconds, ratio) in times.items()
    ]
    header = ("", "median ms", "time / ours", "of the GEMM rate", "peak MiB", "ours / its peak")
    note = f"Ours: {flops[OURS] / 1e9:.1f} GFLOP. In the same rounds: {rates.describe()}."
    return table(title, header, rows, note)


def count_flops(make: Make, shape: tuple[int, ...]) -> int:
    """Count the FLOPs (two a multiply-add) of inference in matrix products and convolutions.

    The model is built and runs without memory or arithmetic, on PyTorch's "meta" device.
    """
    with torch.device("meta"), use_backend("reference"):
        run = build(make, shape)
        with FlopCounterMode(display=False) as counter:
            run()
    return counter.get_total_flops()


def build(make: Make, shape: tuple[int, ...], backward: bool = False) -> Callable[[], object]:
    """Build a model, in evaluation; return what runs it once on inputs of `shape`.

    That returns the model's maps or, with `backward`, the gradients of its parameters, where those
    of the maps are random numbers.
    """
    torch.manual_seed(0)
    model = make().eval()
    inputs = torch.randn(shape)
    if not backward:
        return partial(_inference, model, inputs)
    with torch.device("meta"):
        sizes = [value.shape for value in maps_of(make()(torch.empty(shape)))]
    return partial(_training_pass, model, inputs, [torch.randn(size) for size in sizes])


def maps_of(result: Tensor | dict[str, Tensor]) -> list[Tensor]:
    """What a model returns, as a list."""
    return list(result.values()) if isinstance(result, dict) else [result]


@torch.no_grad()
def _inference(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    return maps_of(model(inputs))


def _training_pass(model: nn.Module, inputs: Tensor, grads: list[Tensor]) -> list[Tensor]:
    model.zero_grad(set_to_none=True)
    torch.autograd.backward(maps_of(model(inputs)), grads)
    return [parameter.grad for parameter in model.parameters()]
