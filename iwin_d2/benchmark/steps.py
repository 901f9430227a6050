"""Models on a GPU that run in turn: training steps and inference, images a second, peak memory."""

import contextlib
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from .models import OURS, Goals, Make, count_flops, maps_of
from .rates import time_with_rates
from .table import against, table
from .target import Gpu, release_memory
from .timing import runs_and_reasons

__all__ = ["TrainingStep", "build", "compare", "compiled"]


def compare(
    title: str,
    models: dict[str, Make],
    shape: tuple[int, ...],
    goals: Goals,
    rounds: int,
    target: Gpu,
    training: bool = True,
    compile_them: bool = False,
) -> list[str]:
    """Measure training steps, or inference, on inputs of `shape`.

    Args:
        title: of the table.
        models: what makes each model; OURS is the first.
        shape: of the inputs, the batch first.
        goals: to stand beside the figures; those of memory are left out.
        rounds: timings of each.
        target: the device, and the dtype of autocast.
        training: a step forward, backward and of AdamW; else inference.
        compile_them: by torch.compile.

    Returns:
        the lines of a table.
    """
    prepare = compiled if compile_them else _as_it_is
    runs = {name: build(make, shape, target, training, prepare) for name, make in models.items()}
    runs, missing = runs_and_reasons(runs)
    if OURS in missing:
        raise RuntimeError(f"ours does not run: {missing[OURS]}")
    times, rates = time_with_rates(runs, rounds, target, clock=target.step_seconds)
    passes = 3 if training else 1  # a backward pass has two products for each of the forward pass
    rows = []
    for name, (seconds, ratio) in times.items():
        rate = passes * count_flops(models[name], shape) / seconds
        rows.append(
            (
                name,
                f"{1000 * seconds:.2f}",
                f"{shape[0] / seconds:.0f}",
                against(f"{ratio:.2f}", goals.faster.get(name)),
                f"{100 * rate / rates.gemm:.0f} %",
                f"{target.peak_memory(runs[name]):.0f}",
            )
        )
    rows += [(name, "does not run", "", reason, "", "") for name, reason in missing.items()]
    runs.clear()
    release_memory()
    header = ("", "median ms", "a second", "time / ours", "of the GEMM rate", "peak MiB")
    return table(title, header, rows, f"In the same rounds: {rates.describe()}.")


def build(
    make: Make,
    shape: tuple[int, ...],
    target: Gpu,
    training: bool = True,
    prepare: Callable[[nn.Module], nn.Module] | None = None,
) -> Callable[[], object]:
    """Build a model; return what runs a training step, or inference, once on inputs of `shape`.

    `prepare` makes something else of the model that runs: `compiled`, say.
    """
    torch.manual_seed(0)
    model = make().to(target.device).train(training)
    inputs = torch.randn(shape, device=target.device)
    run = (prepare or _as_it_is)(model)
    if training:
        return TrainingStep(run, list(model.parameters()), inputs, target.autocast)
    return partial(_infer, run, inputs, target.autocast)


def compiled(model: nn.Module) -> nn.Module:
    """By torch.compile, for the one size that it gets."""
    return torch.compile(model, dynamic=False)


def _as_it_is(model: nn.Module) -> nn.Module:
    return model


class TrainingStep:
    """Forward under autocast, backward from random gradients of the maps, AdamW.

    Leaves no gradients behind.
    """

    def __init__(
        self,
        model: Callable[[Tensor], object],
        parameters: list[nn.Parameter],
        inputs: Tensor,
        autocast: Callable[[], contextlib.AbstractContextManager],
    ):
        self.model = model
        self.inputs = inputs
        self.autocast = autocast
        self.grads: list[Tensor] | None = None
        # As little as that: a step more or less is to change no time.
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-6, fused=True)

    def __call__(self) -> None:
        """Run one step."""
        with self.autocast():
            maps = maps_of(self.model(self.inputs))
        if self.grads is None:
            self.grads = [torch.randn_like(value) for value in maps]
        torch.autograd.backward(maps, self.grads)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def _infer(
    model: Callable[[Tensor], object],
    inputs: Tensor,
    autocast: Callable[[], contextlib.AbstractContextManager],
) -> list[Tensor]:
    with autocast():
        return maps_of(model(inputs))
