"""FLOP counts for torch.utils.flop_counter: two for each multiply-add, as it counts.

Windows at the border count whole, padding included: so they are computed.

PyTorch counts its own attention on the CPU as nothing; counted here as on other devices, so that a
model has the same number on every backend.
"""

import math

import torch
from torch.utils import flop_counter

from .reference import group_counts

__all__ = ["register_flops"]


def attention_flops(qkv_shape, num_heads, window_size, *args, out_shape=None, **kwargs) -> int:
    """Two matrix products a window: logits and their sums of values."""
    return 2 * _matmul(qkv_shape, window_size)


def attention_backward_flops(
    grad_shape, qkv_shape, num_heads, window_size, *args, out_shape=None, **kwargs
) -> int:
    """Five: the logits again, and the gradients of values, weights, queries and keys."""
    return 5 * _matmul(qkv_shape, window_size)


def register_flops() -> None:
    """Register the counts of the compiled attention, and of PyTorch's own on the CPU."""
    aten, iwin = torch.ops.aten, torch.ops.iwin_d2
    sdpa = "_scaled_dot_product_flash_attention_for_cpu"
    for library, name, count in (
        (aten, sdpa, _sdpa_flops),
        (aten, f"{sdpa}_backward", _sdpa_backward_flops),
        (iwin, "attention", attention_flops),
        (iwin, "attention_backward", attention_backward_flops),
    ):
        operator = getattr(library, name, None)
        # A later PyTorch may count, and this module may be imported anew.
        if operator is not None and operator not in flop_counter.flop_registry:
            flop_counter.register_flop_formula(operator)(count)


def _matmul(qkv_shape, window_size) -> int:
    """FLOPs of one product of [tokens, head dimension] with its like, all heads and windows."""
    batch, *frames, height, width, channels = qkv_shape
    tokens = math.prod(frames) * math.prod(window_size)
    windows = batch * math.prod(group_counts((height, width), window_size))
    return 2 * windows * tokens**2 * (channels // 3)


def _sdpa_flops(query_shape, key_shape, value_shape, *args, out_shape=None, **kwargs) -> int:
    return flop_counter.sdpa_flop_count(query_shape, key_shape, value_shape)


def _sdpa_backward_flops(
    grad_shape, query_shape, key_shape, value_shape, *args, out_shape=None, **kwargs
) -> int:
    return flop_counter.sdpa_backward_flop_count(grad_shape, query_shape, key_shape, value_shape)
