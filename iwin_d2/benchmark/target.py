"""What a benchmark runs on: a device and its clock, its memory, the dtype of the numbers there."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError
from . import timing

__all__ = ["CPU", "DEVICES", "DTYPES", "Gpu", "Target", "find_target"]

DEVICES = ("cpu", "cuda")
DTYPES = {str(x).removeprefix("torch."): x for x in (torch.float32, torch.bfloat16, torch.float16)}

_RUNS = 5  # in one timing of a device: few enough for its queue to hold, PyTorch's chains too
_SLEEPS = (10**7, 10**8)  # cycles of the device: about 5 and 50 ms


@dataclass(frozen=True)
class Target:
    """A device, and the dtype that operators are called in and models compute in.

    This one is the processor.
    """

    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    is_gpu = False
    decimals = 1  # of milliseconds, as tables show them

    def random(self, *shape: int) -> Tensor:
        """Normal random numbers."""
        return torch.randn(shape, device=self.device, dtype=self.dtype)

    def autocast(self) -> torch.autocast:
        """The context that models compute in: their parameters stay float32."""
        device = torch.device(self.device).type
        if self.dtype == torch.float32:
            return torch.autocast(device, enabled=False)
        return torch.autocast(device, self.dtype)

    def seconds(self, run: Callable[[], object]) -> float:
        """How long running once takes."""
        return timing.seconds(run)


@dataclass(frozen=True)
class Gpu(Target):
    """The current CUDA device."""

    device: str = "cuda"
    dtype: torch.dtype = torch.bfloat16

    is_gpu = True
    decimals = 3

    def seconds(self, run: Callable[[], object]) -> float:
        """How long the device takes for what one run gives it to do, which must not wait for it.

        Several runs are put into the device's queue while it sleeps: what it takes to put them
        there does not count.
        """
        for cycles in _SLEEPS:
            seconds, in_time = _queued_seconds(run, cycles)
            if in_time:
                break
        return seconds

    def step_seconds(self, run: Callable[[], object]) -> float:
        """How long one run takes, until the device has done all of it, by the wall's clock."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        return time.perf_counter() - start

    def peak_memory(self, run: Callable[[], object]) -> float:
        """The most MiB of the device that running takes, beyond what there was; runs twice."""
        run()  # what libraries allocate the first time
        release_memory()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20


CPU = Target()


def release_memory() -> None:
    """Give what nothing refers to any more back to the current CUDA device."""
    torch.cuda.synchronize()
    gc.collect()
    torch.cuda.empty_cache()


def _queued_seconds(run: Callable[[], object], cycles: int) -> tuple[float, bool]:
    """Return the seconds of a run, and whether all were in the queue before the first began."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda._sleep(cycles)
    start.record()
    for _ in range(_RUNS):
        run()
    end.record()
    in_time = not start.query()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000 / _RUNS, in_time


def find_target(device: str, dtype: str | None = None) -> Target:
    """Return the target of these names; on a CUDA device the default is bfloat16.

    Raises:
        ConfigError: there is no such device here.
    """
    kind = Gpu if device == "cuda" else Target
    if kind is Gpu and not torch.cuda.is_available():
        raise ConfigError(
            "There is no CUDA device here (torch.cuda.is_available() is False): measure on the "
            "processor with --device cpu, or on a machine that has one."
        )
    return kind() if dtype is None else kind(dtype=DTYPES[dtype])
