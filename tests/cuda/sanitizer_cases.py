#!/usr/bin/env python3
"""Small cases of every kernel on a GPU, for compute-sanitizer to look on.

make test-cuda runs this under memcheck, racecheck, initcheck and synccheck, each tensor in an
allocation of its own, so that the first byte too far is seen. Results are compared, too.

    compute-sanitizer --tool racecheck python tests/cuda/sanitizer_cases.py
"""

import itertools
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from iwin_d2.ops import (
    interleaved_window_attention,
    interleaved_window_merge,
    interleaved_window_partition,
    use_backend,
)
from iwin_d2.ops.bias_gelu import bias_gelu
from iwin_d2.ops.depthwise_conv import depthwise_conv_add

DEVICE = "cuda"
DTYPES = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}  # and tolerances
# (map, window, heads, head dimension): each variant of the kernels, with and without padding,
# windows of more tokens than a tile, clips, heads of which the last tile is not full.
ATTENTIONS = (
    ((2, 5, 6), (3, 4), 2, 8),
    ((1, 6, 8), (3, 4), 1, 16),
    ((1, 9, 8), (7, 7), 3, 32),
    ((1, 4, 5), (3, 2), 1, 40),
    ((1, 7, 7), (7, 7), 1, 64),
    ((1, 11, 9), (12, 12), 1, 72),
    ((1, 3, 4), (2, 2), 2, 128),
    ((1, 5, 9, 8), (7, 7), 1, 32),
    ((1, 16, 7, 7), (7, 7), 1, 32),
    ((2, 3, 2, 3), (1, 2), 2, 24),
)
MAPS = ((1, 1, 1, 1), (2, 5, 7, 3), (1, 9, 6, 20), (2, 4, 19, 96), (1, 2, 3, 264))


def run(function: Callable[..., Tensor], tensors: list[Tensor], dtype: torch.dtype, device: str):
    """Return the result and the gradients of all tensors; numbers are made on the CPU."""
    leaves = [x.to(dtype).to(device).requires_grad_() for x in tensors]
    out = function(*leaves)
    grad = torch.linspace(-1, 1, out.numel()).view(out.shape).to(dtype).to(device)
    return out, *torch.autograd.grad(out, leaves, grad, materialize_grads=True)


def calls() -> Iterator[tuple[str, Callable[..., Tensor], list[tuple[int, ...]]]]:
    """Yield functions of tensors, each with a name and the shapes of these."""
    for (size, window, heads, head_dim), pad in itertools.product(ATTENTIONS, (True, False)):
        channels = 3 * heads * head_dim
        shapes = [(*size, channels), (channels,)][: 2 if pad else 1]

        def attend(qkv, row=None, heads=heads, window=window):
            return interleaved_window_attention(qkv, heads, window, row)

        yield f"attention {size} {window} {heads}x{head_dim} {pad}", attend, shapes
    for shape in MAPS:
        # No kernel of PyTorch's between: what those write, initcheck is not told of.
        def there_and_back(x, size=shape[1:3]):
            windows = interleaved_window_partition(x, (3, 2))
            return interleaved_window_merge(windows, (3, 2), size)

        channels = shape[-1]
        taps = [shape, (channels, 1, 3, 3), (channels,), shape]
        yield f"partition and merge {shape}", there_and_back, [shape]
        yield f"depthwise_conv_add {shape}", depthwise_conv_add, taps
        yield f"bias_gelu {shape}", bias_gelu, [shape, (channels,)]


def main() -> int:
    """Run all; return the number of calls whose results are wrong."""
    wrong = count = 0
    for name, function, shapes in calls():
        torch.manual_seed(0)
        tensors = [torch.randn(shape).bfloat16() for shape in shapes]
        with use_backend("reference"):
            truth = run(function, tensors, torch.float64, "cpu")
        for dtype, tolerance in DTYPES.items():
            with use_backend("compiled"):
                results = run(function, tensors, dtype, DEVICE)
            count += 1
            for result, x in zip(results, truth, strict=True):
                apart = (result.detach().double().cpu() - x.detach()).abs().max().item()
                # Written so that NaN counts as wrong, too.
                if not apart <= tolerance * max(1.0, x.abs().max().item()):
                    wrong += 1
                    print(f"{name} in {dtype} is wrong by {apart:.3g}", flush=True)
    print(f"{count} calls, forward and backward; {wrong} results are wrong", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
