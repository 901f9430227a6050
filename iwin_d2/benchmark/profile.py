"""Where a backbone pass spends its time, by PyTorch's profiler."""

import statistics
from collections import Counter
from collections.abc import Callable

from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from .backbone import MODELS
from .models import OURS, PUBLISHED, build
from .table import table

__all__ = ["GROUPS", "benchmark_profile", "time_by_group"]

OTHER = "other"
GROUPS = {
    "matrix products, dense convolutions": (
        "aten::addmm",
        "aten::mm",
        "aten::mkldnn_convolution",
        "aten::_slow_conv2d_forward",
        "aten::thnn_conv2d",
    ),
    "attention": (
        "aten::bmm",
        "aten::_softmax",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_attention_math",
        "iwin_d2::attention",
    ),
    "depthwise convolution": ("aten::_conv_depthwise2d", "iwin_d2::depthwise_conv_add"),
    "GELU": ("aten::gelu", "iwin_d2::bias_gelu"),
    "norms": ("aten::native_layer_norm",),
    "copies, padding": ("aten::copy_", "aten::constant_pad_nd", "aten::cat", "aten::fill_"),
    "whole blocks": ("iwin_d2::iwin_block",),
}
_GROUP_OF = {operator: group for group, operators in GROUPS.items() for operator in operators}


def benchmark_profile(rounds: int = 5) -> list[str]:
    """Profile inference at the detector's size, ours and the published formulation."""
    shape = (1, 3, 800, 1216)
    columns = []
    for name in (OURS, PUBLISHED):
        times = time_by_group(build(MODELS[name], shape), rounds)
        total = sum(times.values())
        columns.append(
            {group: (f"{1000 * t:.0f}", f"{100 * t / total:.0f} %") for group, t in times.items()}
        )
    groups = [g for g in (*GROUPS, OTHER) if any(g in column for column in columns)]
    rows = [(g, *(cell for column in columns for cell in column.get(g, ("", "")))) for g in groups]
    return table(
        "backbone T, inference, 1x800x1216: where the time goes",
        ("", "ours, ms", "share", "published formulation, ms", "share"),
        rows,
        f"Attention is what stands between the two projections, copies apart. Medians of {rounds} "
        "passes; page faults count to what first writes.",
    )


def time_by_group(run: Callable[[], object], rounds: int, warmup: int = 2) -> dict[str, float]:
    """Return the median seconds of a run that each group of operators takes itself."""
    for _ in range(warmup):
        run()
    passes = []
    for _ in range(rounds):
        profiler = profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True)
        with profiler, record_function("pass"):
            run()
        seconds = Counter()
        for event in profiler.events():
            seconds[_group(event)] += event.self_cpu_time_total / 1e6
        passes.append(seconds)
    groups = {group for seconds in passes for group in seconds}
    return {group: statistics.median(seconds[group] for seconds in passes) for group in groups}


def _group(event: FunctionEvent | None) -> str:
    """The group of the innermost operator around an event that belongs to one."""
    while event is not None and event.name not in _GROUP_OF:
        event = event.cpu_parent
    if event is None:
        return OTHER
    if event.name == "aten::mkldnn_convolution" and event.input_shapes[1][1] == 1:
        return "depthwise convolution"
    return _GROUP_OF[event.name]
