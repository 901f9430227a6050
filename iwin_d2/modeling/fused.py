"""Modules as one compiled operator, where nothing is left out that anybody could notice.

A module whose gradients are wanted, whose parts have hooks, were replaced or drop out at random
runs part by part.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from ..ops import backends
from ..ops import block as block_operator
from ..ops import downsample as downsample_operator
from .untouched import is_convolution, is_depthwise_3x3, is_untouched

__all__ = ["can_fuse", "can_fuse_downsample", "run_fused", "run_fused_downsample"]


def can_fuse(block: nn.Module, x: Tensor, parts: tuple[type, ...]) -> bool:
    """Whether `run_fused` may stand for an IwinBlock's forward pass on `x`.

    Args:
        block: an IwinBlock.
        x: Tensor[B, H, W, C] or Tensor[B, T, H, W, C].
        parts: the classes of its attention, its MLP and its convolution.
    """
    if not _is_plain(block, parts):
        return False
    parameters = _parameters(block)
    return (
        not _want_gradients((x, *parameters))
        and backends.is_possible(
            block_operator.can_run, x, block.attn.num_heads, parameters.fc1_weight.shape[0]
        )
        # Last: before, what looks at shapes would be held against a tracer's.
        and _fit(parameters, x.shape[-1])
    )


def run_fused(block: nn.Module, x: Tensor) -> Tensor:
    """Map Tensor[B, H, W, C] or Tensor[B, T, H, W, C] to the same shape."""
    attn = block.attn
    return block_operator.iwin_block(
        x, _parameters(block), attn.num_heads, attn.window_of(x), block.norm1.eps
    )


def can_fuse_downsample(module: nn.Module, x: Tensor) -> bool:
    """Whether `run_fused_downsample` may stand for a Downsample's forward pass on `x`.

    Args:
        module: a Downsample.
        x: Tensor[N, H, W, C].
    """
    norm, conv = module.norm, module.conv
    return (
        is_untouched(norm, nn.LayerNorm)
        and is_convolution(conv, kernel_size=3, stride=2, padding=0, groups=1)
        and all(p is not None for p in (norm.weight, norm.bias, conv.bias))
        and not _want_gradients((x, norm.weight, norm.bias, conv.weight, conv.bias))
        and backends.is_possible(downsample_operator.can_run, x, conv.out_channels)
        and norm.weight.shape == (x.shape[-1],) == (conv.in_channels,)
    )


def run_fused_downsample(module: nn.Module, x: Tensor) -> Tensor:
    """Map Tensor[N, H, W, C] to Tensor[N, ceil(H / 2), ceil(W / 2), 2 * C]."""
    norm, conv = module.norm, module.conv
    return downsample_operator.downsample(
        x, norm.weight, norm.bias, conv.weight, conv.bias, norm.eps
    )


def _want_gradients(tensors: Iterable[Tensor | None]) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _parameters(block: nn.Module) -> block_operator.BlockParameters:
    attn, mlp = block.attn, block.mlp
    depthwise = None if block.dwconv is None else block.dwconv.depthwise
    return block_operator.BlockParameters(
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


def _fit(parameters: block_operator.BlockParameters, channels: int) -> bool:
    """Whether they are all there, and of the shapes of a block of so many channels.

    Part by part a block may do with others: a narrower attention, say.
    """
    shapes = block_operator.parameter_shapes(channels, parameters.fc1_weight.shape[0])
    return all(
        name.startswith("depthwise") if parameter is None else parameter.shape == shapes[name]
        for name, parameter in parameters._asdict().items()
    )


def _is_plain(block: nn.Module, parts: tuple[type, ...]) -> bool:
    """Whether every part is what IwinBlock made it, and none drops out."""
    attn, mlp, dwconv = block.attn, block.mlp, block.dwconv
    return (
        is_untouched(attn, parts[0])
        and is_untouched(mlp, parts[1])
        and all(is_untouched(x, nn.Linear) for x in (attn.qkv, attn.proj, mlp.fc1, mlp.fc2))
        and all(is_untouched(x, nn.LayerNorm) for x in (block.norm1, block.norm2))
        and block.norm1.eps == block.norm2.eps
        and (
            dwconv is None
            or (is_untouched(dwconv, parts[2]) and is_depthwise_3x3(dwconv.depthwise))
        )
        and _does_nothing(block.drop_path)
    )


def _does_nothing(drop_path: nn.Module) -> bool:
    return is_untouched(drop_path, nn.Identity) or (
        is_untouched(drop_path, StochasticDepth) and not drop_path.training
    )
