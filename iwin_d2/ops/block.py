"""A whole Iwin block for inference as one compiled operator (csrc/block.cpp).

There is no reference here: that is the block itself, `iwin_d2.modeling.blocks.IwinBlock`, which
calls this operator where it can run.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import flop_counter

from . import backends, checks
from .flops import attention_flops
from .library import python_side_wanted, register_fake

__all__ = ["BlockParameters", "can_run", "iwin_block", "parameter_shapes"]


def can_run(x: Tensor, num_heads: int, hidden: int) -> str | None:
    """Why the operator cannot serve this call; None if it can.

    Args:
        x: Tensor[B, H, W, C] or Tensor[B, T, H, W, C].
        num_heads: heads of the attention.
        hidden: hidden channels of the MLP.
    """
    reason = backends.why_not("iwin_block", x, backends.effective_dtype(x))
    if reason is not None:
        return reason
    channels = x.shape[-1]
    reason = backends.why_not_channels(
        "block", channels, hidden, numbers=f"{channels} with {hidden} hidden ones"
    )
    if reason is not None:
        return reason
    if channels % num_heads != 0 or channels // num_heads > 128:
        return "the compiled block serves head dimensions up to 128"
    return None


class BlockParameters(NamedTuple):
    """Parameters of an IwinBlock of C channels and D hidden ones, float32, in the order of csrc.

    The depthwise convolution, weight Tensor[C, 1, 3, 3], works frame by frame; None leaves it out.
    """

    norm1_weight: Tensor
    norm1_bias: Tensor
    qkv_weight: Tensor
    qkv_bias: Tensor
    proj_weight: Tensor
    proj_bias: Tensor
    depthwise_weight: Tensor | None
    depthwise_bias: Tensor | None
    norm2_weight: Tensor
    norm2_bias: Tensor
    fc1_weight: Tensor
    fc1_bias: Tensor
    fc2_weight: Tensor
    fc2_bias: Tensor


def parameter_shapes(channels: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """The shape of each of `BlockParameters`, by name, for C channels and D hidden ones."""
    vector = (channels,)
    return {
        "norm1_weight": vector,
        "norm1_bias": vector,
        "qkv_weight": (3 * channels, channels),
        "qkv_bias": (3 * channels,),
        "proj_weight": (channels, channels),
        "proj_bias": vector,
        "depthwise_weight": (channels, 1, 3, 3),
        "depthwise_bias": vector,
        "norm2_weight": vector,
        "norm2_bias": vector,
        "fc1_weight": (hidden, channels),
        "fc1_bias": (hidden,),
        "fc2_weight": (channels, hidden),
        "fc2_bias": vector,
    }


def iwin_block(
    x: Tensor,
    parameters: BlockParameters,
    num_heads: int,
    window_size: tuple[int, int],
    eps: float,
) -> Tensor:
    """Y = norm1(x); z = x + attention(y) + depthwise(y); z + mlp(norm2(z)), without gradients.

    Args:
        x: Tensor[B, H, W, C] or Tensor[B, T, H, W, C], float32 on the CPU.
        parameters: the block's.
        num_heads: heads of the attention.
        window_size: (M_h, M_w).
        eps: of both norms.

    Returns:
        A tensor of the shape of `x`, contiguous.

    Raises:
        ValueError: shapes, dtypes or devices do not fit.
    """
    return torch.ops.iwin_d2.iwin_block.default(x, *parameters, num_heads, window_size, eps)


def _fake(x, *args):
    *parameters, num_heads, window_size, _ = args
    checks.check_window(window_size)
    _check(x, BlockParameters(*parameters), num_heads)
    return x.new_empty(x.shape)


def _check(x, parameters, num_heads) -> None:
    """Raise what csrc/block.cpp says of the same arguments."""
    if x.dim() not in (4, 5):
        raise ValueError(
            f"expected a map of shape [B, H, W, C] or [B, T, H, W, C], got shape {tuple(x.shape)}"
        )
    checks.check_sides(x)
    channels = x.shape[-1]
    if num_heads < 1 or channels % num_heads != 0:
        raise ValueError(
            f"expected a number of channels divisible by num_heads, got {channels} channels and "
            f"{num_heads} heads"
        )
    fc1_shape = tuple(parameters.fc1_weight.shape)
    if len(fc1_shape) != 2:
        raise ValueError(f"expected fc1_weight of two dimensions, got shape {fc1_shape}")
    for name, shape in parameter_shapes(channels, fc1_shape[0]).items():
        parameter = getattr(parameters, name)
        if parameter is not None:
            checks.check_parameter(name, parameter, shape, x)


def block_flops(x_shape, *args, out_shape=None, **kwargs) -> int:
    """FLOPs of the projections, the attention, the convolution and the MLP, two a multiply-add."""
    depthwise, fc1, num_heads, window_size = args[6], args[10], args[14], args[15]
    tokens, channels = math.prod(x_shape[:-1]), x_shape[-1]
    projections = 4 * channels * channels + 2 * math.prod(fc1)
    convolution = 9 * channels if depthwise is not None else 0
    qkv_shape = (*x_shape[:-1], 3 * channels)
    return 2 * tokens * (projections + convolution) + attention_flops(
        qkv_shape, num_heads, window_size
    )


if python_side_wanted(__name__):
    register_fake("iwin_block", _fake)
    if hasattr(torch.ops.iwin_d2, "iwin_block"):
        flop_counter.register_flop_formula(torch.ops.iwin_d2.iwin_block)(block_flops)
