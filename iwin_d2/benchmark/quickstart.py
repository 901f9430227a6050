"""The quickstart's training: an iteration, and what its data loader delivers."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ..d2.config import instantiate
from ..d2.utils.events import EventStorage
from ..data.shapes import generate_shapes_dataset
from ..engine.config_file import load_config
from ..ops import use_backend
from .table import table
from .timing import peak_memory, time_in_turn

__all__ = ["benchmark_quickstart", "quickstart_config"]

_CONFIG = "projects/cascade_mask_rcnn/configs/quickstart.py"


def benchmark_quickstart(rounds: int = 16) -> list[str]:
    """Measure a training iteration of the quickstart, and what its data loader delivers."""
    cfg = quickstart_config()
    batch_size = cfg.dataloader.train.total_batch_size
    steps = {"compiled": _training_step(), "plain": _in_plain_pytorch(_training_step())}
    times = time_in_turn(steps, rounds)
    step = times["compiled"][0]
    loaded = _loader_rate(cfg, batches=40)
    return table(
        f"quickstart model, {batch_size} images of 160 px a batch",
        ("", "value"),
        [
            ("training iteration, median ms", f"{1000 * step:.0f}"),
            ("the same in plain PyTorch, time / this", f"{times['plain'][1]:.2f}"),
            ("training, images/s", f"{batch_size / step:.1f}"),
            (
                f"data loader alone ({cfg.dataloader.train.num_workers} worker), images/s",
                f"{loaded:.0f}",
            ),
            ("peak MiB of an iteration", f"{peak_memory(_training_step):.0f}"),
        ],
    )


def quickstart_config():
    """Load the config, with its data set generated where it is not there yet."""
    cfg = load_config(_CONFIG, [])
    generate_shapes_dataset(Path(cfg.dataset.train_json).parents[1])
    return cfg


def _training_step() -> Callable[[], object]:
    """Build the quickstart's model and data; return what trains one iteration."""
    cfg = quickstart_config()
    torch.manual_seed(0)
    model = instantiate(cfg.model).train()
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    # A few batches in turn: one alone would be learnt by heart, and change its own cost.
    loader = iter(instantiate(cfg.dataloader.train))
    batches = itertools.cycle([next(loader) for _ in range(8)])
    del loader

    def run():
        with EventStorage():
            loss = sum(model(next(batches)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def _in_plain_pytorch(step: Callable[[], object]) -> Callable[[], object]:
    """Return what runs `step` on the plain-PyTorch path of every operator."""

    def run():
        with use_backend("reference"):
            return step()

    return run


def _loader_rate(cfg, batches: int) -> float:
    """Images per second that the training loader gives when nothing else runs."""
    loader = iter(instantiate(cfg.dataloader.train))
    next(loader)  # workers start here
    start = time.perf_counter()
    images = sum(len(next(loader)) for _ in range(batches))
    return images / (time.perf_counter() - start)
