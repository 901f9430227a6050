"""A 3x3 depthwise convolution of a channels-last map, added to another map.

Backends are chosen call by call (`backends`): the compiled operator reads the map once and writes
the sum once; plain PyTorch, `reference`, makes the convolution's result first.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import flop_counter

from . import backends
from .library import (
    python_side_wanted,
    register_autocast,
    register_derivative,
    register_fake,
    register_no_derivative,
)

__all__ = ["can_run", "depthwise_conv_add", "reference"]


def depthwise_conv_add(x: Tensor, weight: Tensor, bias: Tensor | None, other: Tensor) -> Tensor:
    """Return `other` + the depthwise convolution of `x`: 3x3, stride 1, zero padding 1.

    All tensors have one dtype and device; under torch.autocast those of other dtypes than float64
    are cast to its own.

    Args:
        x: Tensor[N, H, W, C].
        weight: Tensor[C, 1, 3, 3], as of torch.nn.Conv2d(C, C, 3, groups=C).
        bias: Tensor[C], or None.
        other: Tensor[N, H, W, C].

    Returns:
        Tensor[N, H, W, C].

    Raises:
        ValueError: shapes, devices or dtypes do not fit.
    """
    _check(x, weight, {"bias": bias}, {"other": other}, backends.effective_dtype)
    if backends.choose(can_run, x):
        return torch.ops.iwin_d2.depthwise_conv_add.default(x, weight, bias, other)
    return reference(x, weight, bias, other)


def can_run(x: Tensor) -> str | None:
    """Why the compiled operator cannot serve this call; None if it can."""
    return backends.why_not("depthwise_conv_add", x, backends.effective_dtype(x))


def reference(x: Tensor, weight: Tensor, bias: Tensor | None, other: Tensor) -> Tensor:
    """Compute `depthwise_conv_add` in plain PyTorch: the definition."""
    out = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1, groups=weight.shape[0])
    if other.dtype != out.dtype:  # under torch.autocast
        other = other.to(out.dtype)
    return other + out.permute(0, 2, 3, 1)


def _check(x, weight, vectors, maps, dtype_of=lambda tensor: tensor.dtype) -> None:
    """Raise what csrc/depthwise_conv.cpp says of the same arguments.

    Sizes may be symbols: of the map's sides only those that are known are looked at.
    """
    if x.dim() != 4:
        raise ValueError(f"expected a map of shape [N, H, W, C], got shape {tuple(x.shape)}")
    if any(isinstance(side, int) and side < 1 for side in x.shape[1:]):
        raise ValueError(f"expected a map without empty sides, got shape {tuple(x.shape)}")
    channels = x.shape[3]
    if tuple(weight.shape) != (channels, 1, 3, 3):
        raise ValueError(
            f"expected weight of shape {(channels, 1, 3, 3)}, 3x3 taps for each channel of x, "
            f"got shape {tuple(weight.shape)}"
        )
    for name, vector in vectors.items():
        if vector is not None and tuple(vector.shape) != (channels,):
            raise ValueError(
                f"expected {name} of shape ({channels},), one value for each channel of x, "
                f"got shape {tuple(vector.shape)}"
            )
    for name, other in maps.items():
        if other.shape != x.shape:
            raise ValueError(
                f"expected {name} of the shape of x, {tuple(x.shape)}, "
                f"got shape {tuple(other.shape)}"
            )
    for name, tensor in {"weight": weight, **vectors, **maps}.items():
        if tensor is not None and (tensor.device, dtype_of(tensor)) != (x.device, dtype_of(x)):
            raise ValueError(
                f"expected x and {name} on one device and of one dtype, got {x.device} {x.dtype} "
                f"and {tensor.device} {tensor.dtype}"
            )


def _fake(x, weight, bias, other):
    _check(x, weight, {"bias": bias}, {"other": other})
    return x.new_empty(x.shape)


def _fake_backward(grad, x, weight):
    _check(x, weight, {}, {"grad": grad})
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape[0])


def _save(ctx, inputs, output):
    x, weight, bias, _ = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, weight)


def _backward(ctx, grad):
    if not any(ctx.needs_input_grad[:3]):
        return None, None, None, grad
    grad_x, grad_weight, grad_bias = torch.ops.iwin_d2.depthwise_conv_backward.default(
        grad, *ctx.saved_tensors
    )
    return grad_x, grad_weight, grad_bias if ctx.has_bias else None, grad


def _flops(x_shape, weight_shape, *args, out_shape=None, **kwargs) -> int:
    """Two for each multiply-add with one of nine taps, those in the padding counted as well."""
    return 2 * math.prod(weight_shape[2:]) * math.prod(x_shape)


def _backward_flops(grad_shape, x_shape, weight_shape, *args, out_shape=None, **kwargs) -> int:
    """Once more for the gradient of x, and once for that of the weight."""
    return 2 * _flops(x_shape, weight_shape)


def _register() -> None:
    register_fake("depthwise_conv_add", _fake)
    register_derivative("depthwise_conv_add", _save, _backward)
    register_autocast("depthwise_conv_add")
    register_fake("depthwise_conv_backward", _fake_backward)
    register_no_derivative("depthwise_conv_backward", "depthwise_conv_add")
    for name, count in (
        ("depthwise_conv_add", _flops),
        ("depthwise_conv_backward", _backward_flops),
    ):
        if hasattr(torch.ops.iwin_d2, name):
            flop_counter.register_flop_formula(getattr(torch.ops.iwin_d2, name))(count)


if python_side_wanted(__name__):
    _register()
