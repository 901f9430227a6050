"""What tools/benchmark.py can measure, by name."""

import importlib
from collections.abc import Callable, Iterable
from functools import partial

__all__ = ["CASES", "ON_GPU"]


def _benchmark(name: str, **settings) -> Iterable[str]:
    # Not before it is asked for: some need packages that others do without.
    module = importlib.import_module(f"{__package__}.{name}")
    return getattr(module, f"benchmark_{name}")(**settings)


# Each takes `rounds`, of which it reports medians, and gives the lines of its tables, some as soon
# as they are there.
CASES: dict[str, Callable[..., Iterable[str]]] = {
    name: partial(_benchmark, name)
    for name in (
        "ops",
        "backbone",
        "video",
        "profile",
        "detector",
        "segmentation",
        "classifier",
        "quickstart",
        "frameworks",
        "loading",
        "loader",
    )
}
# These take a `target`, too: the processor or a GPU.
ON_GPU = ("ops", "backbone", "video", "profile")
