"""The frontend: what the operators take and give, their checks, and the choice of a backend.

Interleaved windows: a map of H x W tokens, padded to Hp x Wp (the next multiples of the window
M), splits into Gh x Gw windows with Gh = Hp / M, Gw = Wp / M. Window (a, b) holds the tokens at
rows a, a + Gh, a + 2 Gh, ... and columns b, b + Gw, ...: M x M tokens, dilated by (Gh, Gw), in
row-major order. On a map with T frames a window holds those tokens of every frame, frame by
frame.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from . import reference, symbolic

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
        ValueError: `x` is not 4-D, or a window side is not a positive integer.
    """
    window = _check_window(window_size)
    if x.dim() != 4:
        raise ValueError(f"expected a map of shape [B, H, W, C], got shape {_shape(x)}")
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
    window = _check_window(window_size)
    if windows.dim() != 3 or windows.shape[1] != window[0] * window[1]:
        raise ValueError(
            f"expected windows of shape [B * Gh * Gw, {window[0] * window[1]}, C] for window size "
            f"{window}, got shape {_shape(windows)}"
        )
    height, width = size
    groups = math.prod(reference.group_counts((height, width), window))
    if windows.shape[0] % groups != 0:
        raise ValueError(
            f"{windows.shape[0]} windows do not make whole maps of size {tuple(size)}: "
            f"each has {groups} windows of size {window}"
        )
    return reference.merge(windows, window, (1, height, width)).squeeze(1)


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
        ValueError: rank, channels, window or `pad_qkv` do not fit.
    """
    window = _check_window(window_size)
    if qkv.dim() not in (4, 5):
        raise ValueError(
            "expected a projected map of shape [B, H, W, 3 * C] or [B, T, H, W, 3 * C], "
            f"got shape {_shape(qkv)}"
        )
    channels = qkv.shape[-1]
    if num_heads < 1 or channels % (3 * num_heads) != 0:
        raise ValueError(
            f"expected a number of channels divisible by 3 * num_heads, got {channels} channels "
            f"and {num_heads} heads"
        )
    if pad_qkv is not None and tuple(pad_qkv.shape) != (channels,):
        raise ValueError(
            f"expected pad_qkv of shape ({channels},), one value per channel of qkv, "
            f"got shape {_shape(pad_qkv)}"
        )
    frames = qkv if qkv.dim() == 5 else qkv.unsqueeze(1)
    backend = symbolic if torch.compiler.is_exporting() else reference
    out = backend.attention(frames, num_heads, window, pad_qkv, scale)
    return out if qkv.dim() == 5 else out.squeeze(1)


def _check_window(window_size: int | Sequence[int]) -> tuple[int, int]:
    """Return (M_h, M_w)."""
    window = (window_size, window_size) if isinstance(window_size, int) else tuple(window_size)
    if len(window) != 2 or not all(isinstance(side, int) and side > 0 for side in window):
        raise ValueError(
            f"expected window_size to be a positive integer or a pair of them, got {window_size!r}"
        )
    return window


def _shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)
