"""The exact (erf) GELU of a sum with a bias, and of a linear layer.

Backends are chosen call by call (`backends`). The compiled operator takes the matrix product
before its bias is added: training keeps that alone, not the sum as well.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import backends
from .library import (
    python_side_wanted,
    register_autocast,
    register_derivative,
    register_fake,
    register_no_derivative,
)
from .linear import linear

__all__ = ["bias_gelu", "can_run", "linear_gelu", "reference"]


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """Return gelu(x + bias).

    Both have one dtype and device; under torch.autocast, as in a linear layer, those of other
    dtypes than float64 are cast to its own.

    Args:
        x: Tensor[..., C].
        bias: Tensor[C].

    Returns:
        Tensor[..., C].

    Raises:
        ValueError: shapes, devices or dtypes do not fit.
    """
    _check(x, bias, backends.effective_dtype)
    if backends.choose(can_run, x):
        return torch.ops.iwin_d2.bias_gelu.default(x, bias)
    return reference(x, bias)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return gelu(x weight^T + bias), which in plain PyTorch is a linear layer and GELU.

    Args:
        x: Tensor[..., C].
        weight: Tensor[D, C].
        bias: Tensor[D].

    Returns:
        Tensor[..., D].
    """
    if backends.choose(can_run, x):
        return bias_gelu(linear(x, weight), bias)
    return F.gelu(F.linear(x, weight, bias))


def can_run(x: Tensor) -> str | None:
    """Why the compiled operator cannot serve this call; None if it can."""
    return backends.why_not("bias_gelu", x, backends.effective_dtype(x))


def reference(x: Tensor, bias: Tensor) -> Tensor:
    """Compute `bias_gelu` in plain PyTorch: the definition."""
    dtype = backends.effective_dtype(x)
    return F.gelu(x.to(dtype) + bias.to(dtype))


def _check(x, bias, dtype_of=lambda tensor: tensor.dtype) -> None:
    """Raise what csrc/bias_gelu.cpp says of the same arguments."""
    if x.dim() < 1 or tuple(bias.shape) != (x.shape[-1],):
        raise ValueError(
            "expected x of shape [..., C] and bias of shape [C], "
            f"got shapes {tuple(x.shape)} and {tuple(bias.shape)}"
        )
    _check_kind(x, "bias", bias, dtype_of)


def _check_kind(x, name, tensor, dtype_of) -> None:
    if (tensor.device, dtype_of(tensor)) != (x.device, dtype_of(x)):
        raise ValueError(
            f"expected x and {name} on one device and of one dtype, got {x.device} {x.dtype} "
            f"and {tensor.device} {tensor.dtype}"
        )


def _fake(x, bias):
    _check(x, bias)
    return x.new_empty(x.shape)


def _fake_backward(grad, x, bias):
    _check(x, bias)
    if grad.shape != x.shape:
        raise ValueError(
            f"expected grad of the shape of x, {tuple(x.shape)}, got shape {tuple(grad.shape)}"
        )
    _check_kind(x, "grad", grad, lambda tensor: tensor.dtype)
    return x.new_empty(x.shape), bias.new_empty(bias.shape)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad):
    return torch.ops.iwin_d2.bias_gelu_backward.default(grad, *ctx.saved_tensors)


def _register() -> None:
    register_fake("bias_gelu", _fake)
    register_derivative("bias_gelu", _save, _backward)
    register_autocast("bias_gelu")
    register_fake("bias_gelu_backward", _fake_backward)
    register_no_derivative("bias_gelu_backward", "bias_gelu")


if python_side_wanted(__name__):
    _register()
