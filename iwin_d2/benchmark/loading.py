"""Loading annotations of the size of COCO train2017."""

import statistics
import tempfile
from pathlib import Path

from ..d2 import describe_framework
from .coco_size import NUM_ANNOTATIONS, NUM_IMAGES, measure_loading, write_coco_size_dataset
from .table import table

__all__ = ["benchmark_loading"]


def benchmark_loading(rounds: int = 1) -> list[str]:
    """Load them for four workers; medians where there are several rounds."""
    with tempfile.TemporaryDirectory() as folder:
        json_file, images = write_coco_size_dataset(Path(folder))
        size = json_file.stat().st_size / 1e6
        found = [measure_loading(json_file, images, num_workers=4) for _ in range(rounds)]
    value = {name: f"{statistics.median(run[name] for run in found):.0f}" for name in found[0]}
    return table(
        f"{NUM_IMAGES:,} images, {NUM_ANNOTATIONS:,} annotations, a json of {size:.0f} MB",
        (describe_framework().split(" (")[0], "value"),
        [
            ("s until the loader stands: classes, checks, records", value["seconds"]),
            ("MiB at the peak of that", value["peak"]),
            ("MiB after it, parent and 4 workers together", value["together"]),
            ("MiB of a process that has only imported the same", value["imported"]),
        ],
    )
