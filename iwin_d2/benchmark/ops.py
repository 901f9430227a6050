"""The attention core: ours, other ways to compute the same, and what no way can fall below."""

import math
import re
from collections.abc import Callable
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
from .timing import peak_memory

__all__ = ["ALTERNATIVES", "Case", "benchmark_ops", "build", "compare", "flex", "why_not"]

SDPA = "scaled_dot_product_attention, strided views"
FLEX = "FlexAttention, compiled"


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

    @property
    def bytes_moved(self) -> int:
        """What forward must move: the projected map in, the result out; float32."""
        return 4 * 4 * self.channels * math.prod(self.size)

    @property
    def flops(self) -> int:
        """FLOPs of forward: q k^T and weights v, padding included."""
        frames = self.size[1] if len(self.size) == 4 else 1
        windows = math.prod(-(-side // self.window_size) for side in self.size[-2:])
        tokens = frames * self.window_size**2
        return 4 * self.size[0] * windows * tokens**2 * self.channels


CORE = Case((1, 203, 308))
CLIP = Case((1, 16, 56, 56))


def benchmark_ops(rounds: int = 15) -> list[str]:
    """Compare the attention core on a detector's map and on a clip's, without and with backward."""
    return [
        *compare(CORE, False, {PUBLISHED: "at least 5", SDPA: "at least 2.5"}, rounds),
        *compare(CORE, True, {PUBLISHED: "at least 3"}, rounds),
        *compare(CLIP, False, {}, rounds),
        *compare(CLIP, True, {}, rounds),
    ]


def compare(case: Case, backward: bool, goals: dict[str, str], rounds: int) -> list[str]:
    """Measure the alternatives in turn; return the lines of a table, with the floors below them."""
    candidates, missing = {}, {}
    for name in ALTERNATIVES:
        run = build(name, case, backward)
        reason = why_not(run) if name == FLEX else None
        if reason is None:
            candidates[name] = run
        else:
            missing[name] = reason
    times, rates = time_with_rates(candidates, rounds)
    rows = [
        (
            name,
            f"{1000 * seconds:.1f}",
            against(f"{ratio:.2f}", goals.get(name)),
            # Of FlexAttention, it would be that of its compilation.
            "" if name == FLEX else f"{peak_memory(partial(build, name, case, backward)):.0f}",
        )
        for name, (seconds, ratio) in times.items()
    ]
    rows += [(name, "does not run", reason, "") for name, reason in missing.items()]
    rows += _floors(case, backward, rates, times[OURS][0])
    passes = "forward + backward" if backward else "forward"
    return table(
        f"{case.describe()}, {passes}",
        ("", "median ms", "time / ours", "peak MiB"),
        rows,
        f"In the same rounds: {rates.describe()}.",
    )


def _floors(case: Case, backward: bool, rates: Rates, ours: float) -> list[tuple[str, ...]]:
    """Rows of what must be moved and computed, at the machine's rates."""
    # Backward reads the projected map and the result's gradient and writes the map's gradient, 7
    # parts to forward's 4; it needs four products to forward's two.
    moved = case.bytes_moved * (11 / 4 if backward else 1)
    flops = case.flops * (3 if backward else 1)
    floors = {
        f"floor: {moved / 1e6:.0f} MB at the rate of copies": moved / rates.copy,
        f"floor: {flops / 1e9:.2f} GFLOP at the GEMM rate": flops / rates.gemm,
    }
    return [
        (name, f"{1000 * seconds:.1f}", f"{seconds / ours:.2f}", "")
        for name, seconds in floors.items()
    ]


def build(
    name: str, case: Case, backward: bool = False
) -> Callable[[], Tensor | tuple[Tensor, ...]]:
    """Make the inputs; return what runs an alternative once on them.

    That returns the result or, with `backward`, the gradients of the projected map and of
    `pad_qkv`, where that of the result is random numbers.
    """
    torch.manual_seed(0)
    qkv = torch.randn(*case.size, 3 * case.channels)
    pad_qkv = torch.randn(3 * case.channels)
    attend = partial(ALTERNATIVES[name], qkv, case.num_heads, case.window_size, pad_qkv)
    if not backward:
        return partial(_forward, attend)
    grad = torch.randn(*case.size, case.channels)
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
    # Compiled for the CPU, views of one buffer are an error.
    out = flex_attention(q.contiguous(), k.contiguous(), v.contiguous())
    out = reference.merge(out.transpose(1, 2).flatten(2), window, tuple(clips.shape[1:4]))
    return out if qkv.dim() == 5 else out.squeeze(1)


@cache
def _compiled_flex() -> Callable[..., Tensor]:
    # A cached kernel may be one for fewer threads, which writes past the end of its buffers.
    torch.compiler.config.force_disable_caches = True
    return torch.compile(flex, fullgraph=True, dynamic=False)


def _flex(*args) -> Tensor:
    return _compiled_flex()(*args)


def why_not(run: Callable[[], object]) -> str | None:
    """Run once; return the reason in one line where that is an error."""
    try:
        run()
    except Exception as error:  # of whatever compiler
        reason = re.search(r"FlexAttention does not[^.]*", str(error))
        return reason[0] if reason else str(error).partition("\n")[0][:100]
    return None


ALTERNATIVES: dict[str, Callable[[Tensor, int, int, Tensor], Tensor]] = {
    OURS: interleaved_window_attention,
    PUBLISHED: published_attention,
    SDPA: _sdpa,
    FLEX: _flex,
}
