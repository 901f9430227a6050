"""What the machine can do: the rates of copies and of matrix products, measured beside the rest."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .target import CPU, Target
from .timing import time_in_turn

__all__ = ["Rates", "measure_rates", "time_with_rates"]

# As the second linear layer of a block of stage 3 at 1x800x1216 (50 x 76 tokens): no library needs
# to write much, so that the rate is that of the arithmetic.
_PRODUCT = (3800, 1536, 384)
_COPIED = 2**27  # bytes: more than a cache holds
# A GPU takes as little time for these as for nothing.
_PRODUCT_ON_GPU = (8192, 8192, 8192)
_COPIED_ON_GPU = 2**30
_REPEATS = 4  # within one timing: the caches are another candidate's at its beginning


@dataclass(frozen=True)
class Rates:
    """Bytes per second, read and written ones counted, and FLOPs per second of each library."""

    copy: float
    products: dict[str, float]

    @property
    def gemm(self) -> float:
        """The machine's rate of matrix products: that of the fastest library."""
        return max(self.products.values())

    def describe(self) -> str:
        """The rates as text."""
        products = ", ".join(
            f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in self.products.items()
        )
        return f"copies {self.copy / 1e9:.1f} GB/s, {products}"


def measure_rates(rounds: int = 5, target: Target = CPU) -> Rates:
    """Measure the rates alone."""
    return time_with_rates({}, rounds, target)[1]


def time_with_rates(
    candidates: dict[str, Callable[[], object]],
    rounds: int,
    target: Target = CPU,
    clock: Callable[[Callable[[], object]], float] | None = None,
    copied: int | None = None,
    product: tuple[int, int, int] | None = None,
) -> tuple[dict[str, tuple[float, float]], Rates]:
    """Time candidates in turn, as `time_in_turn` does, and in the same rounds the rates.

    Args:
        candidates: what to run, by name.
        rounds: timings of each.
        target: what they run on, and the rates are those of.
        clock: returns the seconds that running takes; `target.seconds` by default.
        copied: bytes of a copy.
        product: (rows, inner, columns) of a matrix product.

    Returns:
        what `time_in_turn` does, and the rates.
    """
    copied = copied or (_COPIED_ON_GPU if target.is_gpu else _COPIED)
    product = product or (_PRODUCT_ON_GPU if target.is_gpu else _PRODUCT)
    copy, products = _copy(copied, target), _products(*product, target)
    times = time_in_turn(
        {**candidates, "copy": copy, **products}, rounds, clock=clock or target.seconds
    )
    seconds = {name: times.pop(name)[0] for name in ("copy", *products)}
    flops = 2 * product[0] * product[1] * product[2]
    return times, Rates(
        copy=_REPEATS * 2 * copied / seconds["copy"],
        products={name: _REPEATS * flops / seconds[name] for name in products},
    )


def _copy(size: int, target: Target) -> Callable[[], None]:
    source, result = (torch.ones(size // 4, device=target.device) for _ in range(2))

    def run():
        for _ in range(_REPEATS):
            result.copy_(source)

    return run


def _products(
    rows: int, inner: int, columns: int, target: Target = CPU
) -> dict[str, Callable[[], Tensor]]:
    """The same product by each of PyTorch's libraries; which is the fastest depends on the CPU."""
    a, b = target.random(rows, inner), target.random(inner, columns)
    out = torch.empty(rows, columns, device=target.device, dtype=target.dtype)

    def matrix_product():
        for _ in range(_REPEATS):
            torch.mm(a, b, out=out)
        return out

    candidates = {"torch.mm": matrix_product}
    if torch.backends.mkldnn.is_available() and not target.is_gpu:
        pixels = a.view(1, 1, rows, inner).permute(0, 3, 1, 2)  # channels last
        kernel = b.t().reshape(columns, inner, 1, 1).contiguous()

        def convolution():  # conv2d would take oneDNN for more than one thread only
            for _ in range(_REPEATS):
                maps = torch.mkldnn_convolution(pixels, kernel, None, (0, 0), (1, 1), (1, 1), 1)
            return maps

        candidates["oneDNN's 1x1 convolution"] = convolution
    return candidates
