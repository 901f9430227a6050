"""Blocks as one compiled operator, where nothing is left of them that anybody could notice.

A block whose gradients are wanted, whose parts have hooks, were replaced or drop out at random
runs part by part.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from ..ops import backends
from ..ops import block as compiled

__all__ = ["can_fuse", "run_fused"]


def can_fuse(block: nn.Module, x: Tensor, parts: tuple[type, ...]) -> bool:
    """Whether `run_fused` may stand for an IwinBlock's forward pass on `x`.

    Args:
        block: an IwinBlock.
        x: Tensor[B, H, W, C] or Tensor[B, T, H, W, C].
        parts: the classes of its attention, its MLP and its convolution.
    """
    if torch.is_grad_enabled() and (
        x.requires_grad or any(p.requires_grad for p in block.parameters())
    ):
        return False
    if not _is_plain(block, parts) or (
        block.training and not isinstance(block.drop_path, nn.Identity)
    ):
        return False
    return backends.choose(compiled.can_run, x, block.attn.num_heads, block.mlp.fc1.out_features)


def run_fused(block: nn.Module, x: Tensor) -> Tensor:
    """Map Tensor[B, H, W, C] or Tensor[B, T, H, W, C] to the same shape."""
    attn, mlp = block.attn, block.mlp
    depthwise = None if block.dwconv is None else block.dwconv.depthwise
    return compiled.iwin_block(
        x,
        block.norm1.weight,
        block.norm1.bias,
        attn.qkv.weight,
        attn.qkv.bias,
        attn.proj.weight,
        attn.proj.bias,
        None if depthwise is None else depthwise.weight,
        None if depthwise is None else depthwise.bias,
        block.norm2.weight,
        block.norm2.bias,
        mlp.fc1.weight,
        mlp.fc1.bias,
        mlp.fc2.weight,
        mlp.fc2.bias,
        attn.num_heads,
        (attn.window_size, attn.window_size),
        block.norm1.eps,
    )


def _is_plain(block: nn.Module, parts: tuple[type, ...]) -> bool:
    """Whether every part is what IwinBlock made it, and nobody listens to one."""
    attn, mlp = block.attn, block.mlp
    if (type(attn), type(mlp), type(block.dwconv)) not in (parts, (*parts[:2], type(None))):
        return False
    linear = (attn.qkv, attn.proj, mlp.fc1, mlp.fc2)
    norms = (block.norm1, block.norm2)
    if any(type(part) is not nn.Linear or part.bias is None for part in linear):
        return False
    if any(type(norm) is not nn.LayerNorm or norm.bias is None for norm in norms):
        return False
    if block.norm1.eps != block.norm2.eps:
        return False
    if block.dwconv is not None and type(block.dwconv.depthwise) is not nn.Conv2d:
        return False
    return not _has_any_global_hook() and not any(
        part._forward_hooks or part._forward_pre_hooks
        for part in block.modules()
        if part is not block
    )
