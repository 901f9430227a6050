"""What tools/benchmark.py can measure, by name."""

from collections.abc import Callable

from .backbone import benchmark_backbone
from .frameworks import benchmark_frameworks
from .loading import benchmark_loading
from .ops import benchmark_ops
from .profile import benchmark_profile
from .quickstart import benchmark_quickstart
from .video import benchmark_video

__all__ = ["CASES"]

# Each takes `rounds`, of which it reports medians, and returns the lines of its tables.
CASES: dict[str, Callable[..., list[str]]] = {
    "ops": benchmark_ops,
    "backbone": benchmark_backbone,
    "video": benchmark_video,
    "profile": benchmark_profile,
    "quickstart": benchmark_quickstart,
    "frameworks": benchmark_frameworks,
    "loading": benchmark_loading,
}
