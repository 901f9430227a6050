"""Where a backbone pass spends its time, by PyTorch's profiler."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

from torch.profiler import ProfilerActivity, profile, record_function

from .backbone import MODELS
from .gpu_profile import profile_training
from .groups import group_of, order
from .models import OURS, PUBLISHED, build
from .table import table
from .target import CPU, Target
from .timing import take_turns

__all__ = ["OTHER", "benchmark_profile", "profile_in_turn", "time_by_group"]

OTHER = "other: giving memory back, Python"


def benchmark_profile(rounds: int = 5, target: Target = CPU) -> Iterator[str]:
    """Profile inference at the detector's size, and a training pass; on a GPU, training steps."""
    if target.is_gpu:
        yield from profile_training(rounds, target)
        return
    yield from _compare("inference, 1x800x1216", (1, 3, 800, 1216), False, rounds)
    yield from _compare("forward + backward, 1x512x512", (1, 3, 512, 512), True, rounds)


def _compare(what: str, shape: tuple[int, ...], backward: bool, rounds: int) -> list[str]:
    """Return the lines of a table of ours and the published formulation."""
    runs = {name: build(MODELS[name], shape, backward) for name in (OURS, PUBLISHED)}
    return profile_in_turn(f"backbone T, {what}: where the time goes", runs, rounds)


def profile_in_turn(title: str, runs: dict[str, Callable[[], object]], rounds: int) -> list[str]:
    """Return the lines of a table of what each group of operators takes of each run."""
    times = time_by_group(runs, rounds)
    groups = {group for found in times.values() for group in found}
    rows = [
        (group, *(cell for found in times.values() for cell in _cells(found, group)))
        for group in sorted(groups, key=partial(order, last=OTHER))
    ]
    header = ("", *(cell for name in times for cell in (f"{name}, ms", "share")))
    return table(title, header, rows, f"Medians of {rounds} passes, in turn.")


def time_by_group(
    runs: dict[str, Callable[[], object]], rounds: int, warmup: int = 2
) -> dict[str, dict[str, float]]:
    """Return the median seconds of each run that each group of operators takes itself."""
    passes = take_turns(
        {name: partial(_profile, run) for name, run in runs.items()}, rounds, warmup
    )
    return {
        name: {
            group: statistics.median(seconds[group] for seconds in found)
            for group in {group for seconds in found for group in seconds}
        }
        for name, found in passes.items()
    }


def _profile(run: Callable[[], object]) -> Counter[str]:
    """Run once; return the seconds of each group."""
    profiler = profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True)
    with profiler, record_function("pass"):
        run()
    seconds = Counter()
    for event in profiler.events():
        seconds[group_of(event) or OTHER] += event.self_cpu_time_total / 1e6
    return seconds


def _cells(seconds: dict[str, float], group: str) -> tuple[str, str]:
    if group not in seconds:
        return "", ""
    return f"{1000 * seconds[group]:.0f}", f"{100 * seconds[group] / sum(seconds.values()):.0f} %"
