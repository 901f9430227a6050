"""Where a training step spends its time on a GPU: by operator, and by kernel."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from . import backbone, steps, video
from .groups import group_of, order
from .models import OURS, PUBLISHED
from .table import table
from .target import Gpu, release_memory

__all__ = ["idle_seconds", "profile_training", "seconds_by_group", "seconds_by_kernel"]

OTHER = "other"
IDLE = "between kernels, nothing"
_LISTED = 25  # kernels
_NAME = 110  # characters of a kernel's name, which may have a thousand


def profile_training(rounds: int, target: Gpu) -> Iterator[str]:
    """Profile the training steps of both backbones, which are not compiled."""
    for title, made, shape in (
        ("backbone T, training step, 64x224x224", backbone.TRAINED, (64, 3, 224, 224)),
        ("video backbone T, training step, 8x32x224x224", video.MODELS, (8, 3, 32, 224, 224)),
    ):
        others = [name for name in made if name not in (OURS, PUBLISHED)]
        events = {}
        for name in (OURS, PUBLISHED, *others):
            events[name] = _profile(steps.build(made[name], shape, target), rounds)
            release_memory()
        if not seconds_by_kernel(events[OURS]):
            yield f"{title}: PyTorch's profiler sees no kernels on this machine."
            continue
        yield from _groups_table(title, events, rounds)
        yield from _kernels_table(f"{title}, {OURS}", events[OURS], rounds)


def _profile(run: Callable[[], object], rounds: int, warmup: int = 2) -> list[FunctionEvent]:
    """Return what happened in so many runs."""
    for _ in range(warmup):
        run()
    torch.cuda.synchronize()
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities, record_shapes=True, acc_events=True) as profiler:
        for _ in range(rounds):
            run()
        torch.cuda.synchronize()
    # An annotation lasts as long as what happens under it, and would count twice.
    return [event for event in profiler.events() if not event.is_user_annotation]


def seconds_by_group(events: Iterable[FunctionEvent]) -> Counter[str]:
    """The seconds of the device that each group of operators takes itself."""
    seconds = Counter()
    for event in events:
        if event.device_type == DeviceType.CPU and event.self_device_time_total > 0:
            seconds[group_of(event) or OTHER] += event.self_device_time_total / 1e6
    return seconds


def seconds_by_kernel(events: Iterable[FunctionEvent]) -> dict[str, tuple[int, float]]:
    """How often each kernel ran, copies and the like among them, and its seconds in all."""
    found = {}
    for event in events:
        if event.device_type == DeviceType.CUDA:
            count, seconds = found.get(event.name, (0, 0.0))
            found[event.name] = count + 1, seconds + event.time_range.elapsed_us() / 1e6
    return found


def idle_seconds(events: Iterable[FunctionEvent]) -> float:
    """The seconds between the first kernel's start and the last one's end in which none ran."""
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type == DeviceType.CUDA
    )
    idle, reached = 0.0, spans[0][0] if spans else 0.0
    for start, end in spans:
        idle += max(0.0, start - reached)
        reached = max(reached, end)
    return idle / 1e6


def _groups_table(title: str, events: dict[str, list[FunctionEvent]], rounds: int) -> list[str]:
    times = {
        name: {**seconds_by_group(found), IDLE: idle_seconds(found)}
        for name, found in events.items()
    }
    groups = {group for found in times.values() for group in found}
    rows = []
    for group in sorted(groups, key=partial(order, last=IDLE)):
        row = [group]
        for found in times.values():
            share = found.get(group, 0.0) / sum(found.values())
            row += (
                [f"{1000 * found[group] / rounds:.2f}", f"{100 * share:.0f} %"]
                if group in found
                else ["", ""]
            )
        rows.append(row)
    header = ["", *(cell for name in times for cell in (f"{name}, ms", "share"))]
    note = (
        f"Means of {rounds} steps; under the profiler there is more between kernels than without."
    )
    return table(f"{title}: where the time goes", header, rows, note)


def _kernels_table(title: str, events: list[FunctionEvent], rounds: int) -> list[str]:
    found = seconds_by_kernel(events)
    total = sum(seconds for _, seconds in found.values())
    longest = sorted(found.items(), key=lambda item: item[1][1], reverse=True)
    rows = [
        (
            f"`{name.replace('|', '/')[:_NAME]}`",
            f"{count / rounds:.0f}",
            f"{1000 * seconds / rounds:.3f}",
            f"{100 * seconds / total:.1f} %",
        )
        for name, (count, seconds) in longest[:_LISTED]
    ]
    return table(f"{title}: kernels", ("", "calls", "ms a step", "share"), rows)
