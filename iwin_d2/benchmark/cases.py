"""The measurements: backbone, training iteration and data loader of the quickstart, annotations."""

import itertools
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torchvision.models import swin_t

from ..d2 import describe_framework
from ..d2.config import instantiate
from ..d2.utils.events import EventStorage
from ..modeling import iwin_tiny
from .coco_size import (
    NUM_ANNOTATIONS,
    NUM_IMAGES,
    measure_loading,
    write_coco_size_dataset,
)
from .frameworks import benchmark_frameworks
from .published import use_published_blocks
from .quickstart import quickstart_config
from .timing import peak_memory, time_in_turn

__all__ = ["CASES", "describe_machine"]


def describe_machine() -> str:
    """One line on the machine class that the figures belong to."""
    return (
        f"{platform.machine()}, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, float32"
    )


def _features(kind: str, shape: tuple[int, ...]) -> Callable[[], object]:
    """Build a backbone; return what runs it once without gradients."""
    torch.manual_seed(0)
    if kind == "torchvision swin_t features":
        model = swin_t().features
    else:
        model = iwin_tiny() if kind == "ours" else use_published_blocks(iwin_tiny())
    model.eval()
    images = torch.randn(shape)

    def run():
        with torch.no_grad():
            return model(images)

    return run


def benchmark_backbone() -> list[str]:
    """Compare forward passes of T at the classifier's and the detector's size."""
    kinds = ("ours", "published formulation", "torchvision swin_t features")
    lines = []
    for shape in ((8, 3, 224, 224), (1, 3, 800, 1216)):
        times = time_in_turn({kind: _features(kind, shape) for kind in kinds})
        lines += _table(
            f"backbone T, inference, {shape[0]}x{shape[2]}x{shape[3]}",
            ("", "median ms", "time / ours", "peak MiB"),
            [
                (
                    kind,
                    f"{1000 * seconds:.0f}",
                    f"{ratio:.2f}",
                    f"{peak_memory(partial(_features, kind, shape)):.0f}",
                )
                for kind, (seconds, ratio) in times.items()
            ],
        )
    return lines


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


def benchmark_quickstart() -> list[str]:
    """Measure a training iteration of the quickstart, and what its data loader delivers."""
    cfg = quickstart_config()
    batch_size = cfg.dataloader.train.total_batch_size
    step, _ = time_in_turn({"step": _training_step()}, rounds=16)["step"]
    loaded = _loader_rate(cfg, batches=40)
    return _table(
        f"quickstart model, {batch_size} images of 160 px a batch",
        ("", "value"),
        [
            ("training iteration, median ms", f"{1000 * step:.0f}"),
            ("training, images/s", f"{batch_size / step:.1f}"),
            (
                f"data loader alone ({cfg.dataloader.train.num_workers} worker), images/s",
                f"{loaded:.0f}",
            ),
            ("peak MiB of an iteration", f"{peak_memory(_training_step):.0f}"),
        ],
    )


def _loader_rate(cfg, batches: int) -> float:
    """Images per second that the training loader gives when nothing else runs."""
    loader = iter(instantiate(cfg.dataloader.train))
    next(loader)  # workers start here
    start = time.perf_counter()
    images = sum(len(next(loader)) for _ in range(batches))
    return images / (time.perf_counter() - start)


def benchmark_loading() -> list[str]:
    """Load annotations of the size of COCO train2017 for four workers."""
    with tempfile.TemporaryDirectory() as folder:
        json_file, images = write_coco_size_dataset(Path(folder))
        size = json_file.stat().st_size / 1e6
        found = measure_loading(json_file, images, num_workers=4)
    return _table(
        f"{NUM_IMAGES:,} images, {NUM_ANNOTATIONS:,} annotations, a json of {size:.0f} MB",
        (describe_framework().split(" (")[0], "value"),
        [
            ("s until the loader stands: classes, checks, records", f"{found['seconds']:.0f}"),
            ("MiB at the peak of that", f"{found['peak']:.0f}"),
            ("MiB after it, parent and 4 workers together", f"{found['together']:.0f}"),
            ("MiB of a process that has only imported the same", f"{found['imported']:.0f}"),
        ],
    )


def _table(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [f"### {title}", "", f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


CASES = {
    "backbone": benchmark_backbone,
    "quickstart": benchmark_quickstart,
    "frameworks": benchmark_frameworks,
    "loading": benchmark_loading,
}
