"""What a list of a million videos costs until batches of its records come from workers."""

import multiprocessing
import time
from functools import partial
from itertools import islice
from pathlib import Path

from ..data.loader import build_train_loader
from ..data.video.records import load_video_list
from .timing import in_own_process, memory_status, memory_together

__all__ = ["measure_list", "write_long_list"]

_BATCHES = 500


def write_long_list(folder: Path, lines: int = 1_000_000) -> Path:
    """Write a list like Kinetics' under a folder, with an (empty) file for its first video."""
    path = folder / "list.txt"
    with path.open("w") as file:
        for number in range(lines):
            label = number % 400
            file.write(f"class_{label:03d}/{number:011d}_000012_000022.mp4 {label}\n")
    (folder / "class_000").mkdir()
    (folder / "class_000" / f"{0:011d}_000012_000022.mp4").touch()
    return path


def measure_list(path: Path, num_workers: int = 4) -> dict[str, float]:
    """Load a list and read batches of its records, in a process of its own. Linux only.

    Returns:
        seconds: to load the list. In MiB: peak, the process' greatest memory until then; together,
        that of the process and its workers once these have read batches; imported, that of a
        process which has only imported everything.
    """
    return in_own_process(partial(_load, str(path), num_workers))


def _load(path: str, num_workers: int) -> dict[str, float]:
    imported = memory_status("VmRSS")
    start = time.perf_counter()
    videos = load_video_list(path)
    seconds = time.perf_counter() - start
    peak = memory_status("VmHWM")
    loader = build_train_loader(
        videos,
        mapper=_Passing(),
        total_batch_size=8,
        aspect_ratio_grouping=False,
        num_workers=num_workers,
        seed=0,
    )
    stream = iter(loader)
    for _ in islice(stream, _BATCHES):
        pass
    workers = [child.pid for child in multiprocessing.active_children()]
    together = memory_together("self", workers)
    return {"seconds": seconds, "peak": peak, "together": together, "imported": imported}


class _Passing:
    """A mapper that hands records on: there are no videos to read."""

    unit = "video"

    def __call__(self, record: dict) -> dict:
        return record
