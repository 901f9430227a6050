"""LayerNorm and 3x3 convolution of stride 2, for inference, as one compiled operator.

As with `block`, the reference is the module that calls it: `iwin_d2.modeling.blocks.Downsample`.
"""

import math

import torch
from torch import Tensor
from torch.utils import flop_counter

from . import backends, checks
from .library import python_side_wanted, register_fake

__all__ = ["can_run", "downsample"]


def can_run(x: Tensor, outputs: int) -> str | None:
    """Why the operator cannot serve this call; None if it can.

    Args:
        x: Tensor[N, H, W, C].
        outputs: channels of the result.
    """
    reason = backends.why_not("downsample", x, backends.effective_dtype(x))
    if reason is None:
        reason = backends.why_not_channels("downsampling", x.shape[-1], outputs)
    return reason


def downsample(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """Normalise every token, then convolve by 3x3 at stride 2, without gradients.

    The map is padded with zeros, after the norm, to an even size and one row and column more, on
    the right and at the bottom.

    Args:
        x: Tensor[N, H, W, C], float32 on the CPU.
        norm_weight: Tensor[C].
        norm_bias: Tensor[C].
        weight: Tensor[D, C, 3, 3].
        bias: Tensor[D].
        eps: of the norm.

    Returns:
        Tensor[N, ceil(H / 2), ceil(W / 2), D], contiguous.

    Raises:
        ValueError: shapes, dtypes or devices do not fit.
    """
    return torch.ops.iwin_d2.downsample.default(x, norm_weight, norm_bias, weight, bias, eps)


def _fake(x, norm_weight, norm_bias, weight, bias, eps):
    _check(x, norm_weight, norm_bias, weight, bias)
    batch, height, width, _ = x.shape
    return x.new_empty(batch, (height + 1) // 2, (width + 1) // 2, weight.shape[0])


def _check(x, norm_weight, norm_bias, weight, bias) -> None:
    """Raise what csrc/downsample.cpp says of the same arguments."""
    if x.dim() != 4:
        raise ValueError(f"expected a map of shape [N, H, W, C], got shape {tuple(x.shape)}")
    checks.check_sides(x)
    if weight.dim() != 4:
        raise ValueError(f"expected weight of shape [D, C, 3, 3], got shape {tuple(weight.shape)}")
    channels, outputs = x.shape[-1], weight.shape[0]
    checks.check_parameter("norm_weight", norm_weight, (channels,), x)
    checks.check_parameter("norm_bias", norm_bias, (channels,), x)
    checks.check_parameter("weight", weight, (outputs, channels, 3, 3), x)
    checks.check_parameter("bias", bias, (outputs,), x)


def downsample_flops(
    x_shape, norm_weight, norm_bias, weight_shape, *args, out_shape=None, **kwargs
) -> int:
    """FLOPs of the convolution, two a multiply-add."""
    batch, height, width, _ = x_shape
    return 2 * batch * ((height + 1) // 2) * ((width + 1) // 2) * math.prod(weight_shape)


if python_side_wanted(__name__):
    register_fake("downsample", _fake)
    if hasattr(torch.ops.iwin_d2, "downsample"):
        flop_counter.register_flop_formula(torch.ops.iwin_d2.downsample)(downsample_flops)
