"""Where a backbone pass spends its time, by PyTorch's profiler."""

import statistics
from collections import Counter
from collections.abc import Callable
from functools import partial

from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from .backbone import MODELS
from .models import OURS, PUBLISHED, build
from .table import table
from .timing import take_turns

__all__ = ["BLOCKS", "GROUPS", "OTHER", "benchmark_profile", "time_by_group"]

DEPTHWISE = "depthwise convolution"
BLOCKS = "whole blocks in one operator"
OTHER = "other: giving memory back, Python"
_SDPA = "aten::_scaled_dot_product_flash_attention_for_cpu"
GROUPS = {
    "matrix products, dense convolutions": (
        "aten::addmm",
        "aten::mm",
        "aten::mkldnn_convolution",
        "aten::convolution_backward",
        "iwin_d2::downsample",  # with its norm
        "iwin_d2::linear",
        "iwin_d2::linear_backward_input",
        "iwin_d2::linear_backward_weight",
        "iwin_d2::mlp",  # with its GELU
        "iwin_d2::mlp_backward",
    ),
    "attention": (
        "aten::bmm",
        "aten::_softmax",
        "aten::_softmax_backward_data",
        _SDPA,
        f"{_SDPA}_backward",
        "iwin_d2::attention",
        "iwin_d2::attention_backward",
    ),
    DEPTHWISE: ("iwin_d2::depthwise_conv_add", "iwin_d2::depthwise_conv_backward"),
    "GELU": (
        "aten::gelu",
        "aten::gelu_backward",
        "iwin_d2::bias_gelu",
        "iwin_d2::bias_gelu_backward",
    ),
    "norms": ("aten::native_layer_norm", "aten::native_layer_norm_backward"),
    "copies, padding": (
        "aten::copy_",
        "aten::constant_pad_nd",
        "aten::cat",
        "aten::fill_",
        "aten::zero_",
    ),
    "sums, scaling": ("aten::add", "aten::add_", "aten::mul", "aten::sum"),
    BLOCKS: ("iwin_d2::iwin_block",),
}
_GROUP_OF = {operator: group for group, operators in GROUPS.items() for operator in operators}
# Where each of these has the convolution's weight among its arguments.
_WEIGHTS = {"aten::mkldnn_convolution": 1, "aten::convolution_backward": 2}


def benchmark_profile(rounds: int = 5) -> list[str]:
    """Profile inference at the detector's size, and a training pass."""
    return [
        *_compare("inference, 1x800x1216", (1, 3, 800, 1216), False, rounds),
        *_compare("forward + backward, 1x512x512", (1, 3, 512, 512), True, rounds),
    ]


def _compare(what: str, shape: tuple[int, ...], backward: bool, rounds: int) -> list[str]:
    """Return the lines of a table of ours and the published formulation."""
    runs = {name: build(MODELS[name], shape, backward) for name in (OURS, PUBLISHED)}
    times = time_by_group(runs, rounds)
    groups = {group for found in times.values() for group in found}
    rows = [
        (group, *(cell for found in times.values() for cell in _cells(found, group)))
        for group in sorted(groups, key=_place)
    ]
    return table(
        f"backbone T, {what}: where the time goes",
        ("", *(cell for name in times for cell in (f"{name}, ms", "share"))),
        rows,
        f"Medians of {rounds} passes, in turn.",
    )


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
        seconds[_group(event)] += event.self_cpu_time_total / 1e6
    return seconds


def _place(group: str) -> tuple[int, str]:
    """Order as in GROUPS, then what is not in there, OTHER last."""
    order = [*GROUPS, None, OTHER]
    return order.index(group if group in order else None), group


def _cells(seconds: dict[str, float], group: str) -> tuple[str, str]:
    if group not in seconds:
        return "", ""
    return f"{1000 * seconds[group]:.0f}", f"{100 * seconds[group] / sum(seconds.values()):.0f} %"


def _group(event: FunctionEvent | None) -> str:
    """The group of the innermost operator around an event that belongs to one.

    An operator of this package that no group names is its own.
    """
    while event is not None and event.name not in _GROUP_OF:
        if event.name.startswith("iwin_d2::"):
            return event.name
        event = event.cpu_parent
    if event is None:
        return OTHER
    if event.name in _WEIGHTS and event.input_shapes[_WEIGHTS[event.name]][1] == 1:
        return DEPTHWISE
    return _GROUP_OF[event.name]
