"""The attention core: ours, other ways to compute the same, and what no way can fall below."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from ..ops import interleaved_window_attention, reference
from .models import OURS, PUBLISHED
from .published import published_attention
from .rates import Rates, time_with_rates
from .table import against, table
from .target import CPU, Target
from .timing import peak_memory, runs_and_reasons

__all__ = ["ALTERNATIVES", "Case", "benchmark_ops", "build", "compare", "flex"]

SDPA = "scaled_dot_product_attention, strided views"
FLEX = "FlexAttention, compiled"
TIME, RATIO, SHARE = "median ms", "time / ours", "of the rate of copies"  # columns


@dataclass(frozen=True)
class Case:
    """A projected map, [B, H, W, 3 * C] or [B, T, H, W, 3 * C], without its channels, and heads."""

    size: tuple[int, ...]
    num_heads: int = 3
    head_dim: int = 32
    window_size: int = 7

    def describe(self) -> str:
        """The case in words."""
        heads = f"{self.num_heads} heads of {self.head_dim}"
        size = "x".join(map(str, self.size))
        return f"attention core, {size}, {heads}, window {self.window_size}"

    @property
    def channels(self) -> int:
        """C."""
        return self.num_heads * self.head_dim

    def bytes_moved(self, dtype: torch.dtype) -> int:
        """What forward must move: the projected map in, the result out."""
        return 4 * self.channels * math.prod(self.size) * dtype.itemsize

    @property
    def flops(self) -> int:
        """FLOPs of forward: q k^T and weights v, padding included."""
        frames = self.size[1] if len(self.size) == 4 else 1
        windows = math.prod(-(-side // self.window_size) for side in self.size[-2:])
        tokens = frames * self.window_size**2
        return 4 * self.size[0] * windows * tokens**2 * self.channels


CORE = Case((1, 203, 308))
CLIP = Case((1, 16, 56, 56))
ON_CPU = (  # (case, backward, what is to be reached)
    (CORE, False, {PUBLISHED: "at least 5", SDPA: "at least 2.5"}),
    (CORE, True, {PUBLISHED: "at least 3"}),
    (CLIP, False, {}),
    (CLIP, True, {}),
)

# Batches: a GPU wants more to do than one image.
CORES = Case((8, 200, 304))
CLIPS = Case((8, 16, 56, 56))
_GOALS = {
    OURS: "at least 60 %",
    PUBLISHED: "at least 4",
    SDPA: "at least 1.5",
    FLEX: "at least 1.5",
}
ON_GPU = (
    (CORES, False, _GOALS),
    (CORES, True, {PUBLISHED: "at least 3"}),
    (CLIPS, False, {}),
    (CLIPS, True, {SDPA: "above 1"}),
)


def benchmark_ops(rounds: int = 15, target: Target = CPU) -> Iterator[str]:
    """Compare the attention core on a detector's map and on a clip's, without and with backward."""
    for case, backward, goals in ON_GPU if target.is_gpu else ON_CPU:
        yield from compare(case, backward, goals, rounds, target)


def compare(
    case: Case, backward: bool, goals: dict[str, str], rounds: int, target: Target = CPU
) -> list[str]:
    """Measure the alternatives in turn; return the lines of a table, with the floors below them.

    On a GPU, with the rate at which each moves what must be moved as a share of that of copies: the
    goal of OURS is such a share, the others' are factors.
    """
    runs = {name: build(name, case, backward, target) for name in ALTERNATIVES}
    runs, missing = runs_and_reasons(runs)
    if OURS in missing:
        raise RuntimeError(f"the attention core itself does not run: {missing[OURS]}")
    times, rates = time_with_rates(runs, rounds, target)
    rows = []
    for name, (seconds, ratio) in times.items():
        share = f"{100 * _bytes_moved(case, backward, target) / seconds / rates.copy:.0f} %"
        row = {"": name, **_time_cells(seconds, ratio, target), SHARE: share}
        goal = SHARE if name == OURS else RATIO
        row[goal] = against(row[goal], goals.get(name))
        row["peak MiB"] = _peak(name, runs[name], case, backward, target)
        rows.append(row)
    rows += [{"": name, TIME: "does not run", RATIO: why} for name, why in missing.items()]
    for name, seconds in _floors(case, backward, rates, target).items():
        rows.append({"": name, **_time_cells(seconds, seconds / times[OURS][0], target)})
    columns = ["", TIME, RATIO, *([SHARE] if target.is_gpu else []), "peak MiB"]
    return table(
        f"{case.describe()}, {'forward + backward' if backward else 'forward'}",
        columns,
        [[row.get(column, "") for column in columns] for row in rows],
        f"In the same rounds: {rates.describe()}.",
    )


def _time_cells(seconds: float, ratio: float, target: Target) -> dict[str, str]:
    return {TIME: f"{1000 * seconds:.{target.decimals}f}", RATIO: f"{ratio:.2f}"}


def _peak(name: str, run: Callable, case: Case, backward: bool, target: Target) -> str:
    if target.is_gpu:
        return f"{target.peak_memory(run):.0f}"
    # Of FlexAttention, it would be that of its compilation.
    return "" if name == FLEX else f"{peak_memory(partial(build, name, case, backward)):.0f}"


def _bytes_moved(case: Case, backward: bool, target: Target) -> float:
    # Backward reads the projected map and the result's gradient and writes the map's gradient, 7
    # parts to forward's 4.
    return case.bytes_moved(target.dtype) * (11 / 4 if backward else 1)


def _floors(case: Case, backward: bool, rates: Rates, target: Target) -> dict[str, float]:
    """What must be moved and computed, in words, and its seconds at the machine's rates."""
    moved = _bytes_moved(case, backward, target)
    flops = case.flops * (3 if backward else 1)  # backward needs four products to forward's two
    return {
        f"floor: {moved / 1e6:.0f} MB at the rate of copies": moved / rates.copy,
        f"floor: {flops / 1e9:.2f} GFLOP at the GEMM rate": flops / rates.gemm,
    }


def build(
    name: str, case: Case, backward: bool = False, target: Target = CPU
) -> Callable[[], Tensor | tuple[Tensor, ...]]:
    """Make the inputs; return what runs an alternative once on them.

    That returns the result or, with `backward`, the gradients of the projected map and of
    `pad_qkv`, where that of the result is random numbers.
    """
    torch.manual_seed(0)
    qkv = target.random(*case.size, 3 * case.channels)
    pad_qkv = target.random(3 * case.channels)
    attend = partial(ALTERNATIVES[name], qkv, case.num_heads, case.window_size, pad_qkv)
    if not backward:
        return partial(_forward, attend)
    grad = target.random(*case.size, case.channels)
    inputs = (qkv.requires_grad_(), pad_qkv.requires_grad_())
    return lambda: torch.autograd.grad(attend(), inputs, grad, materialize_grads=True)


@torch.no_grad()
def _forward(attend: Callable[[], Tensor]) -> Tensor:
    return attend()


def _sdpa(qkv: Tensor, num_heads: int, window_size: int, pad_qkv: Tensor) -> Tensor:
    clips = qkv if qkv.dim() == 5 else qkv.unsqueeze(1)
    out = reference.attention(clips, num_heads, (window_size, window_size), pad_qkv, None)
    return out if qkv.dim() == 5 else out.squeeze(1)


def flex(qkv: Tensor, num_heads: int, window_size: int, pad_qkv: Tensor) -> Tensor:
    """FlexAttention on windows that are gathered into a batch; slow unless it is compiled."""
    clips, window = qkv if qkv.dim() == 5 else qkv.unsqueeze(1), (window_size, window_size)
    windows = reference.partition(clips, window, pad_qkv)
    q, k, v = windows.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    if qkv.device.type == "cpu":  # compiled for it, views of one buffer are an error
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    out = flex_attention(q, k, v)
    out = reference.merge(out.transpose(1, 2).flatten(2), window, tuple(clips.shape[1:4]))
    return out if qkv.dim() == 5 else out.squeeze(1)


@cache
def _compiled_flex() -> Callable[..., Tensor]:
    # A cached kernel may be one for fewer threads, which writes past the end of its buffers.
    torch.compiler.config.force_disable_caches = not torch.cuda.is_available()
    return torch.compile(flex, fullgraph=True, dynamic=False)


def _flex(*args) -> Tensor:
    return _compiled_flex()(*args)


ALTERNATIVES: dict[str, Callable[[Tensor, int, int, Tensor], Tensor]] = {
    OURS: interleaved_window_attention,
    PUBLISHED: published_attention,
    SDPA: _sdpa,
    FLEX: _flex,
}
