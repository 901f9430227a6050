"""What the operators say about arguments that do not fit: one sentence, with what was received.

The frontend and the fake kernels call these; csrc/checks.h and csrc/<op>.cpp say the same.
Sizes may be symbols: only those that are known are looked at, so that no check pins one down.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .reference import group_counts

__all__ = [
    "check_attention",
    "check_attention_backward",
    "check_merge",
    "check_one_dtype",
    "check_parameter",
    "check_partition",
    "check_scale",
    "check_sides",
    "check_window",
]

LIMIT = 2**31  # so that no product of two sides overflows in the kernels


def check_window(window_size: int | Sequence[int]) -> tuple[int, int]:
    """Return (M_h, M_w)."""
    window = tuple(window_size) if _is_sequence(window_size) else (window_size, window_size)
    if len(window) != 2 or not all(_is_integer(side) and side > 0 for side in window):
        raise ValueError(
            f"expected window_size to be a positive integer or a pair of them, got {window_size!r}"
        )
    if window[0] * window[1] >= LIMIT:
        raise ValueError(
            f"expected a window of fewer than {LIMIT} tokens, got window_size {window_size!r}"
        )
    return window


def check_partition(x: Tensor) -> None:
    """Check a map, Tensor[B, H, W, C]."""
    if x.dim() != 4:
        raise ValueError(f"expected a map of shape [B, H, W, C], got shape {_shape(x)}")
    check_sides(x)


def check_merge(windows: Tensor, window: tuple[int, int], size: Sequence[int]) -> tuple[int, int]:
    """Check Tensor[B * Gh * Gw, M_h * M_w, C] against the `size` of the map, which is returned."""
    if not (_is_sequence(size) and len(size) == 2 and all(_may_be_side(side) for side in size)):
        raise ValueError(
            f"expected size to be (H, W), a pair of positive integers below {LIMIT}, got {size!r}"
        )
    tokens = window[0] * window[1]
    if windows.dim() != 3 or windows.shape[1] != tokens:
        raise ValueError(
            f"expected windows of shape [B * Gh * Gw, {tokens}, C] for window size {window}, "
            f"got shape {_shape(windows)}"
        )
    size = tuple(size)
    groups = math.prod(group_counts(size, window))
    if windows.shape[0] % groups != 0:
        raise ValueError(
            f"{windows.shape[0]} windows do not make whole maps of size {size}: "
            f"each has {groups} windows of size {window}"
        )
    return size


def check_attention(qkv: Tensor, num_heads: int, pad_qkv: Tensor | None) -> None:
    """Check Tensor[B, H, W, 3 * C] or Tensor[B, T, H, W, 3 * C], and the row of its padding."""
    if qkv.dim() not in (4, 5):
        raise ValueError(
            "expected a projected map of shape [B, H, W, 3 * C] or [B, T, H, W, 3 * C], "
            f"got shape {_shape(qkv)}"
        )
    check_sides(qkv)
    if not qkv.is_floating_point():
        raise ValueError(f"expected qkv of a floating-point dtype, got {qkv.dtype}")
    if not _is_integer(num_heads):
        raise ValueError(f"expected num_heads to be a positive integer, got {num_heads!r}")
    channels = qkv.shape[-1]
    if num_heads < 1 or channels % (3 * num_heads) != 0:
        raise ValueError(
            f"expected a number of channels divisible by 3 * num_heads, got {channels} channels "
            f"and {num_heads} heads"
        )
    if pad_qkv is None:
        return
    if pad_qkv.dim() != 1 or pad_qkv.shape[0] != channels:
        raise ValueError(
            f"expected pad_qkv of shape ({channels},), one value per channel of qkv, "
            f"got shape {_shape(pad_qkv)}"
        )
    if pad_qkv.device != qkv.device:
        raise ValueError(
            f"expected qkv and pad_qkv on one device, got {qkv.device} and {pad_qkv.device}"
        )


def check_one_dtype(qkv: Tensor, pad_qkv: Tensor | None) -> None:
    """Check what the compiled operators want beyond the frontend, which casts."""
    if pad_qkv is not None and pad_qkv.dtype != qkv.dtype:
        raise ValueError(
            f"expected qkv and pad_qkv of one dtype, got {qkv.dtype} and {pad_qkv.dtype}"
        )


def check_scale(scale: float | None) -> None:
    """Check the factor on the logits."""
    if scale is not None and (isinstance(scale, bool) or not isinstance(scale, (int, float))):
        raise ValueError(f"expected scale to be a number or None, got {scale!r}")


def check_attention_backward(grad: Tensor, qkv: Tensor) -> None:
    """Check the gradient of the attention's result, Tensor[.., C], against a checked `qkv`."""
    shape = (*qkv.shape[:-1], qkv.shape[-1] // 3)
    if tuple(grad.shape) != shape:
        raise ValueError(f"expected a gradient of shape {shape}, got shape {_shape(grad)}")
    if grad.device != qkv.device or grad.dtype != qkv.dtype:
        raise ValueError(
            f"expected a gradient on {qkv.device} of dtype {qkv.dtype}, "
            f"got {grad.device} and {grad.dtype}"
        )


def check_sides(x: Tensor) -> None:
    """Batch and channels may be empty; frames, height and width may not."""
    if any(isinstance(side, int) and side < 1 for side in x.shape[1:-1]):
        raise ValueError(f"expected a map without empty sides, got shape {_shape(x)}")


def check_parameter(name: str, parameter: Tensor, shape: Sequence[int], x: Tensor) -> None:
    """Check a parameter of a layer that `x` goes through."""
    if tuple(parameter.shape) != tuple(shape):
        raise ValueError(f"expected {name} of shape {tuple(shape)}, got shape {_shape(parameter)}")
    if parameter.device != x.device or parameter.dtype != x.dtype:
        raise ValueError(
            f"expected x and {name} on one device and of one dtype, got {x.device} {x.dtype} and "
            f"{parameter.device} {parameter.dtype}"
        )


def _may_be_side(side: object) -> bool:
    """Whether this is a positive integer, or something that a tracer stands in its place."""
    if isinstance(side, int):
        return not isinstance(side, bool) and 0 < side < LIMIT
    return isinstance(side, (torch.SymInt, Tensor))


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_sequence(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)
