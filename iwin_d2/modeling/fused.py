"""Modules as one compiled operator, where nothing is left out that anybody could notice.

A module whose gradients are wanted, whose parts have hooks, were replaced or drop out at random
runs part by part.
"""

import torch
from torch import Tensor, nn

from ..ops import backends
from ..ops import block as block_operator
from ..ops import downsample as downsample_operator
from .untouched import is_depthwise_3x3, is_untouched

__all__ = ["can_fuse", "can_fuse_downsample", "run_fused", "run_fused_downsample"]


def can_fuse(block: nn.Module, x: Tensor, parts: tuple[type, ...]) -> bool:
    """Whether `run_fused` may stand for an IwinBlock's forward pass on `x`.

    Args:
        block: an IwinBlock.
        x: Tensor[B, H, W, C] or Tensor[B, T, H, W, C].
        parts: the classes of its attention, its MLP and its convolution.
    """
    return (
        not _wants_gradients(block, x)
        and _is_plain(block, parts)
        and backends.is_possible(
            block_operator.can_run, x, block.attn.num_heads, block.mlp.fc1.out_features
        )
    )


def run_fused(block: nn.Module, x: Tensor) -> Tensor:
    """Map Tensor[B, H, W, C] or Tensor[B, T, H, W, C] to the same shape."""
    attn, mlp = block.attn, block.mlp
    depthwise = None if block.dwconv is None else block.dwconv.depthwise
    parameters = block_operator.BlockParameters(
        norm1_weight=block.norm1.weight,
        norm1_bias=block.norm1.bias,
        qkv_weight=attn.qkv.weight,
        qkv_bias=attn.qkv.bias,
        proj_weight=attn.proj.weight,
        proj_bias=attn.proj.bias,
        depthwise_weight=None if depthwise is None else depthwise.weight,
        depthwise_bias=None if depthwise is None else depthwise.bias,
        norm2_weight=block.norm2.weight,
        norm2_bias=block.norm2.bias,
        fc1_weight=mlp.fc1.weight,
        fc1_bias=mlp.fc1.bias,
        fc2_weight=mlp.fc2.weight,
        fc2_bias=mlp.fc2.bias,
    )
    window = (attn.window_size, attn.window_size)
    return block_operator.iwin_block(x, parameters, attn.num_heads, window, block.norm1.eps)


def can_fuse_downsample(module: nn.Module, x: Tensor) -> bool:
    """Whether `run_fused_downsample` may stand for a Downsample's forward pass on `x`."""
    return (
        not _wants_gradients(module, x)
        and is_untouched(module.norm, nn.LayerNorm)
        and is_untouched(module.conv, nn.Conv2d)
        and module.norm.bias is not None
        and module.conv.bias is not None
        and backends.is_possible(downsample_operator.can_run, x, module.conv.out_channels)
    )


def run_fused_downsample(module: nn.Module, x: Tensor) -> Tensor:
    """Map Tensor[B, H, W, C] to Tensor[B, ceil(H / 2), ceil(W / 2), 2 * C]."""
    norm, conv = module.norm, module.conv
    return downsample_operator.downsample(
        x, norm.weight, norm.bias, conv.weight, conv.bias, norm.eps
    )


def _wants_gradients(module: nn.Module, x: Tensor) -> bool:
    return torch.is_grad_enabled() and (
        x.requires_grad or any(p.requires_grad for p in module.parameters())
    )


def _is_plain(block: nn.Module, parts: tuple[type, ...]) -> bool:
    """Whether every part is what IwinBlock made it, and none drops out."""
    attn, mlp, dwconv = block.attn, block.mlp, block.dwconv
    linear = (attn.qkv, attn.proj, mlp.fc1, mlp.fc2)
    norms = (block.norm1, block.norm2)
    return (
        is_untouched(attn, parts[0])
        and is_untouched(mlp, parts[1])
        and all(is_untouched(part, nn.Linear) for part in linear)
        and all(is_untouched(part, nn.LayerNorm) for part in norms)
        and all(part.bias is not None for part in (*linear, *norms))
        and block.norm1.eps == block.norm2.eps
        and (
            dwconv is None
            or (is_untouched(dwconv, parts[2]) and is_depthwise_3x3(dwconv.depthwise))
        )
        and (not block.training or is_untouched(block.drop_path, nn.Identity))
    )
