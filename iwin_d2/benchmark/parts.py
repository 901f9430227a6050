"""What each part of UPerNet takes of a pass: time, or FLOPs."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..ops import use_backend

__all__ = ["PARTS", "count_flops_by_part", "seconds_by_part"]

_BACKBONE = "backbone"
_FUSION = "the levels joined, and the convolution of them all"
_REST = "labels of the logits"
# Of the head, the modules of each part.
_MODULES = {
    "pyramid pooling": ("pyramid_pooling",),
    "lateral 1x1 convolutions": ("lateral_convs",),
    "3x3 convolutions of the levels": ("fpn_convs",),
    "classifier": ("predictor",),
}
PARTS = (_BACKBONE, *list(_MODULES)[:3], _FUSION, "classifier", _REST)

Meter = Callable[[], float]


def seconds_by_part(model: nn.Module, run: Callable[[], object]) -> Counter[str]:
    """Run once; return the seconds of each of PARTS. `model` is a segmenter with a UPerNetHead."""
    return _measure(model, run, time.perf_counter)


def count_flops_by_part(model: nn.Module, run: Callable[[], object]) -> Counter[str]:
    """Run once; return the FLOPs of each part, in matrix products and convolutions, two a pair."""
    with use_backend("reference"), FlopCounterMode(display=False) as counter:
        return _measure(model, run, counter.get_total_flops)


def _measure(model: nn.Module, run: Callable[[], object], meter: Meter) -> Counter[str]:
    head = model.sem_seg_head
    modules = {_BACKBONE: [model.backbone]}
    for part, names in _MODULES.items():
        found = [getattr(head, name) for name in names]
        modules[part] = [y for x in found for y in (x if isinstance(x, nn.ModuleList) else [x])]
    with _metered(modules, head, meter) as taken:
        before = meter()
        run()
        taken["whole"] = meter() - before
    whole, layers = taken.pop("whole"), taken.pop("layers")
    taken[_REST] = whole - layers - taken[_BACKBONE]
    taken[_FUSION] = layers - sum(taken[part] for part in _MODULES)
    return taken


@contextmanager
def _metered(
    modules: dict[str, list[nn.Module]], head: nn.Module, meter: Meter
) -> Iterator[Counter[str]]:
    """Within the block, add up what calls of these modules take, and of head.layers as "layers"."""
    taken: Counter[str] = Counter()
    started: list[float] = []
    handles = []

    def finish(part: str) -> None:
        taken[part] += meter() - started.pop()

    for part, listed in modules.items():
        for module in listed:
            handles.append(module.register_forward_pre_hook(lambda *_: started.append(meter())))
            handles.append(module.register_forward_hook(lambda *_, part=part: finish(part)))

    def layers(features):
        started.append(meter())
        logits = type(head).layers(head, features)
        finish("layers")
        return logits

    head.layers = layers
    try:
        yield taken
    finally:
        del head.layers
        for handle in handles:
            handle.remove()
