"""The quickstart's training on native and on Detectron2: two processes that take turns.

Both begin with the same weights and load the same batches, so that they do the same work; their
losses are compared to show it.
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable

import torch

from ..d2.config import instantiate
from ..d2.framework import detectron2_is_installed
from ..d2.utils.events import EventStorage
from .quickstart import quickstart_config
from .table import table
from .timing import take_turns

__all__ = ["FRAMEWORKS", "benchmark_frameworks", "describe_ratios"]

FRAMEWORKS = ("detectron2", "native")  # the second is compared with the first
_VARIABLE = "IWIN_D2_FRAMEWORK"


def training_step() -> Callable[[], float]:
    """Build the quickstart's model; return what loads a batch, trains on it, returns the loss."""
    cfg = quickstart_config()
    cfg.dataloader.train.update(num_workers=0, seed=0)
    torch.manual_seed(0)
    model = instantiate(cfg.model).train()
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    batches = iter(instantiate(cfg.dataloader.train))

    def run() -> float:
        with EventStorage():
            loss = sum(model(next(batches)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def _answer(pipe, threads: int) -> None:
    """Train one iteration for everything that comes in; send (seconds, loss)."""
    torch.set_num_threads(threads)
    run = training_step()
    while pipe.recv():
        start = time.perf_counter()
        loss = run()
        pipe.send((time.perf_counter() - start, loss))


class _TrainingProcess:
    """A process that trains on one framework, an iteration a call."""

    def __init__(self, framework: str, threads: int):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_answer, args=(theirs, threads), daemon=True)
        before = os.environ.get(_VARIABLE)
        os.environ[_VARIABLE] = framework  # chosen at import, in the new process
        try:
            self._process.start()
        finally:
            os.environ.pop(_VARIABLE)
            if before is not None:
                os.environ[_VARIABLE] = before
        theirs.close()

    def __call__(self) -> tuple[float, float]:
        """Return the seconds and the loss of the next iteration."""
        try:
            self._pipe.send(True)
            return self._pipe.recv()
        except (EOFError, OSError):
            raise RuntimeError("a training process ended; its error stands above") from None

    def close(self) -> None:
        self._pipe.send(False)
        self._process.join()


def describe_ratios(times: list[float], base: list[float]) -> str:
    """Median and quartiles of the rounds' time / base, as text."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(times, base)], n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def benchmark_frameworks(rounds: int = 60) -> list[str]:
    """Compare training iterations, loading of the data included, in one run."""
    if not detectron2_is_installed():
        return ["frameworks: Detectron2 is not installed, nothing to compare native with.", ""]
    batch_size = quickstart_config().dataloader.train.total_batch_size  # makes the data, too
    threads = torch.get_num_threads()
    processes = {name: _TrainingProcess(name, threads) for name in FRAMEWORKS}
    results = take_turns(processes, rounds, warmup=3)
    for process in processes.values():
        process.close()
    times = {name: [seconds for seconds, _ in values] for name, values in results.items()}
    losses = [[loss for _, loss in values] for values in results.values()]
    apart = max(abs(a - b) / abs(b) for a, b in zip(*losses))
    agreement = f"differ by at most {apart:.0e} of their value" if apart else "are equal"
    rows = [
        (
            name,
            f"{1000 * statistics.median(times[name]):.0f}",
            f"{batch_size / statistics.median(times[name]):.1f}",
            describe_ratios(times[name], times[FRAMEWORKS[0]]),
        )
        for name in FRAMEWORKS
    ]
    return table(
        f"quickstart model, training, {batch_size} images of 160 px a batch",
        ("framework", "median ms", "images/s", f"time / {FRAMEWORKS[0]}'s: median (quartiles)"),
        rows,
        f"{rounds} iterations each, in turn; the losses {agreement}.",
    )
