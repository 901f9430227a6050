"""The compiled backend: what PyTorch has to know of its operators, and when they can run.

Schemas and checks are in csrc/<op>.cpp, kernels in csrc/cpu/<op>_kernel.cpp.
"""

import math

import torch
from torch import Tensor

from . import backends, checks
from .library import (
    python_side_wanted,
    register_autocast,
    register_derivative,
    register_fake,
    register_no_derivative,
)
from .reference import group_counts

__all__ = [
    "attention",
    "can_run_attention",
    "can_run_merge",
    "can_run_partition",
    "merge",
    "partition",
]

MAX_HEAD_DIM = 128


def can_run_partition(x: Tensor) -> str | None:
    """Why the operator cannot serve this call; None if it can."""
    return backends.why_not("partition", x)


def can_run_merge(windows: Tensor) -> str | None:
    """Why the operator cannot serve this call; None if it can."""
    return backends.why_not("merge", windows)


def can_run_attention(qkv: Tensor, num_heads: int) -> str | None:
    """Why the operator cannot serve this call; None if it can."""
    reason = backends.why_not("attention", qkv, backends.effective_dtype(qkv))
    if reason is not None:
        return reason
    head_dim = qkv.shape[-1] // (3 * num_heads)
    if head_dim % 8 != 0 or not 8 <= head_dim <= MAX_HEAD_DIM:
        return (
            f"the compiled attention serves head dimensions that are multiples of 8 up to "
            f"{MAX_HEAD_DIM}, not {head_dim}"
        )
    return None


def partition(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Gather Tensor[B, H, W, C] into Tensor[B * Gh * Gw, M_h * M_w, C]."""
    return torch.ops.iwin_d2.partition.default(x, window)


def merge(windows: Tensor, window: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Scatter windows back to Tensor[B, H, W, C] for `size` (H, W)."""
    return torch.ops.iwin_d2.merge.default(windows, window, size)


def attention(
    qkv: Tensor,
    num_heads: int,
    window: tuple[int, int],
    pad_qkv: Tensor | None,
    scale: float | None,
) -> Tensor:
    """Attention inside each window of Tensor[B, H, W, 3 * C] or Tensor[B, T, H, W, 3 * C]."""
    if scale is None:
        scale = (qkv.shape[-1] // (3 * num_heads)) ** -0.5
    return torch.ops.iwin_d2.attention.default(qkv, num_heads, window, pad_qkv, scale)


def _fake_partition(x, window_size):
    window = checks.check_window(window_size)
    checks.check_partition(x)
    batch, height, width, channels = x.shape
    groups = math.prod(group_counts((height, width), window))
    return x.new_empty(batch * groups, window[0] * window[1], channels)


def _fake_merge(windows, window_size, size):
    window = checks.check_window(window_size)
    height, width = checks.check_merge(windows, window, size)
    groups = math.prod(group_counts((height, width), window))
    return windows.new_empty(windows.shape[0] // groups, height, width, windows.shape[-1])


def _fake_attention(qkv, num_heads, window_size, pad_qkv, scale):
    checks.check_window(window_size)
    checks.check_attention(qkv, num_heads, pad_qkv)
    checks.check_one_dtype(qkv, pad_qkv)
    return qkv.new_empty(*qkv.shape[:-1], qkv.shape[-1] // 3)


def _fake_attention_backward(grad, qkv, num_heads, window_size, pad_qkv, scale):
    _fake_attention(qkv, num_heads, window_size, pad_qkv, scale)
    checks.check_attention_backward(grad, qkv)
    return qkv.new_empty(qkv.shape), qkv.new_empty(qkv.shape[-1])


def _save_for_partition(ctx, inputs, output):
    x, ctx.window_size = inputs
    ctx.size = x.shape[1:3]


def _partition_backward(ctx, grad):
    return torch.ops.iwin_d2.merge.default(grad, ctx.window_size, ctx.size), None


def _save_for_merge(ctx, inputs, output):
    _, ctx.window_size, _ = inputs


def _merge_backward(ctx, grad):
    return torch.ops.iwin_d2.partition.default(grad, ctx.window_size), None, None


def _save_for_attention(ctx, inputs, output):
    # Logits and weights are computed again: memory grows with the tokens, never with windows.
    qkv, ctx.num_heads, ctx.window_size, pad_qkv, ctx.scale = inputs
    ctx.save_for_backward(qkv, pad_qkv)


def _attention_backward(ctx, grad):
    qkv, pad_qkv = ctx.saved_tensors
    grad_qkv, grad_pad = torch.ops.iwin_d2.attention_backward.default(
        grad, qkv, ctx.num_heads, ctx.window_size, pad_qkv, ctx.scale
    )
    return grad_qkv, None, None, None if pad_qkv is None else grad_pad, None


def _register() -> None:
    register_fake("partition", _fake_partition)
    register_derivative("partition", _save_for_partition, _partition_backward)
    register_fake("merge", _fake_merge)
    register_derivative("merge", _save_for_merge, _merge_backward)
    register_fake("attention", _fake_attention)
    register_derivative("attention", _save_for_attention, _attention_backward)
    register_autocast("attention")
    register_fake("attention_backward", _fake_attention_backward)
    register_no_derivative("attention_backward", "interleaved_window_attention")


if python_side_wanted(__name__):
    _register()
