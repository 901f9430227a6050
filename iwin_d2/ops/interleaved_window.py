"""The frontend: what the operators take and give, their checks, and the choice of a backend.

Interleaved windows: a map of H x W tokens, padded to Hp x Wp (the next multiples of the window
M), splits into Gh x Gw windows with Gh = Hp / M, Gw = Wp / M. Window (a, b) holds the tokens at
rows a, a + Gh, a + 2 Gh, ... and columns b, b + Gw, ...: M x M tokens, dilated by (Gh, Gw), in
row-major order. On a map with T frames a window holds those tokens of every frame, frame by
frame.

Backends are chosen call by call (`backends`). What torch.export, torch.jit.trace and the ONNX
exporters take down is plain PyTorch, so that an exported program needs nothing of this package;
torch.compile keeps the compiled operators.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import backends, checks, compiled, reference, symbolic

__all__ = [
    "interleaved_window_attention",
    "interleaved_window_merge",
    "interleaved_window_partition",
]


def interleaved_window_partition(x: Tensor, window_size: int | Sequence[int]) -> Tensor:
    """Gather a map into its interleaved windows; the padding is zeros (right and bottom).

    Args:
        x: Tensor[B, H, W, C], any H and W.
        window_size: M, or (M_h, M_w).

    Returns:
        Tensor[B * Gh * Gw, M_h * M_w, C], windows in the order (image, a, b).

    Raises:
        ValueError: `x` is not 4-D or has an empty side, or a window side is not a positive integer.
    """
    window = checks.check_window(window_size)
    checks.check_partition(x)
    if backends.choose(compiled.can_run_partition, x):
        return compiled.partition(x, window)
    return reference.partition(x.unsqueeze(1), window)


def interleaved_window_merge(
    windows: Tensor, window_size: int | Sequence[int], size: Sequence[int]
) -> Tensor:
    """Scatter interleaved windows back to the map they came from and crop the padding away.

    The inverse of `interleaved_window_partition`.

    Args:
        windows: Tensor[B * Gh * Gw, M_h * M_w, C].
        window_size: M, or (M_h, M_w).
        size: (H, W) of the map.

    Returns:
        Tensor[B, H, W, C].

    Raises:
        ValueError: the windows' shape does not fit `window_size` and `size`.
    """
    window = checks.check_window(window_size)
    size = checks.check_merge(windows, window, size)
    if backends.choose(compiled.can_run_merge, windows):
        return compiled.merge(windows, window, size)
    return reference.merge(windows, window, (1, *size)).squeeze(1)


def interleaved_window_attention(
    qkv: Tensor,
    num_heads: int,
    window_size: int | Sequence[int],
    pad_qkv: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Multi-head attention inside each interleaved window of a projected map.

    There is no mask and no position bias: tokens of the padding take part in the softmax
    (facts of the published models: they are zeros before the qkv projection, so their q, k and v
    equal its bias).

    Args:
        qkv: Tensor[B, H, W, 3 * C] or Tensor[B, T, H, W, 3 * C]; channels in the order
            (q | k | v, head, head dimension).
        num_heads: C must be divisible by it.
        window_size: M, or (M_h, M_w); a window of a 5-D map holds all T frames.
        pad_qkv: Tensor[3 * C], the row that tokens of the padding take; zeros when None.
        scale: factor on the logits; (C / num_heads) ** -0.5 when None.

    Returns:
        Tensor[B, H, W, C] or Tensor[B, T, H, W, C].

    Raises:
        ValueError: rank, sides, dtype, channels, window or `pad_qkv` do not fit.
    """
    window = checks.check_window(window_size)
    checks.check_attention(qkv, num_heads, pad_qkv)
    checks.check_scale(scale)
    if pad_qkv is not None:
        pad_qkv = pad_qkv.to(qkv.dtype)
    if backends.choose(compiled.can_run_attention, qkv, num_heads):
        return compiled.attention(qkv, num_heads, window, pad_qkv, scale)
    frames = qkv if qkv.dim() == 5 else qkv.unsqueeze(1)
    backend = symbolic if torch.compiler.is_compiling() else reference
    out = backend.attention(frames, num_heads, window, pad_qkv, scale)
    return out if qkv.dim() == 5 else out.squeeze(1)
