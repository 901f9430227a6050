"""The MLP of a block, two linear layers with an exact GELU between them, as one operator.

The compiled operator keeps nothing but its input for the gradients: the hidden map, four times as
wide, is computed again. In plain PyTorch it is `linear_gelu` and `linear`, which keep it twice.
"""

import math

import torch
from torch import Tensor
from torch.utils import flop_counter

from . import backends, checks
from .bias_gelu import linear_gelu
from .library import (
    python_side_wanted,
    register_derivative,
    register_fake,
    register_no_derivative,
)
from .linear import linear

__all__ = ["can_run", "mlp"]


def mlp(
    x: Tensor, fc1_weight: Tensor, fc1_bias: Tensor, fc2_weight: Tensor, fc2_bias: Tensor
) -> Tensor:
    """Return fc2(gelu(fc1(x))).

    Args:
        x: Tensor[..., C].
        fc1_weight: Tensor[D, C].
        fc1_bias: Tensor[D].
        fc2_weight: Tensor[C, D].
        fc2_bias: Tensor[C].

    Returns:
        Tensor[..., C].
    """
    if backends.is_possible(can_run, x, fc1_weight, fc2_weight):
        return torch.ops.iwin_d2.mlp.default(x, fc1_weight, fc1_bias, fc2_weight, fc2_bias)
    return linear(linear_gelu(x, fc1_weight, fc1_bias), fc2_weight, fc2_bias)


def can_run(x: Tensor, fc1_weight: Tensor, fc2_weight: Tensor) -> str | None:
    """Why the operator cannot serve this call; None if it can."""
    reason = backends.why_not("mlp", x, backends.effective_dtype(x))
    if reason is not None:
        return reason
    reason = backends.why_not_channels("MLP", *fc1_weight.shape)
    if reason is not None:
        return reason
    if not x.dtype == fc1_weight.dtype == fc2_weight.dtype:
        return "the compiled MLP serves tensors of one dtype"
    if fc2_weight.shape != fc1_weight.shape[::-1]:
        return "the compiled MLP gives as many channels as it takes"
    return None


def _fake(x, fc1_weight, fc1_bias, fc2_weight, fc2_bias):
    _check(x, fc1_weight, fc1_bias, fc2_weight)
    checks.check_parameter("fc2_bias", fc2_bias, (fc1_weight.shape[1],), x)
    return x.new_empty(x.shape)


def _fake_backward(grad, x, fc1_weight, fc1_bias, fc2_weight):
    _check(x, fc1_weight, fc1_bias, fc2_weight)
    checks.check_parameter("grad", grad, tuple(x.shape), x)
    return (
        x.new_empty(x.shape),
        x.new_empty(fc1_weight.shape),
        x.new_empty(fc1_bias.shape),
        x.new_empty(fc2_weight.shape),
        x.new_empty(x.shape[-1]),
    )


def _check(x, fc1_weight, fc1_bias, fc2_weight) -> None:
    """Raise what csrc/mlp.cpp says of the same arguments."""
    if fc1_weight.dim() != 2:
        raise ValueError(
            f"expected fc1_weight of shape [D, C], got shape {tuple(fc1_weight.shape)}"
        )
    hidden, channels = fc1_weight.shape
    if x.dim() < 1 or x.shape[-1] != channels:
        raise ValueError(
            f"expected x of {channels} channels, as fc1_weight has, got shape {tuple(x.shape)}"
        )
    checks.check_parameter("fc1_weight", fc1_weight, (hidden, channels), x)
    checks.check_parameter("fc1_bias", fc1_bias, (hidden,), x)
    checks.check_parameter("fc2_weight", fc2_weight, (channels, hidden), x)


def _save(ctx, inputs, output):
    x, fc1_weight, fc1_bias, fc2_weight, _ = inputs
    ctx.save_for_backward(x, fc1_weight, fc1_bias, fc2_weight)


def _backward(ctx, grad):
    return torch.ops.iwin_d2.mlp_backward.default(grad, *ctx.saved_tensors)


def _flops(x_shape, fc1_shape, *args, out_shape=None, **kwargs) -> int:
    """Two matrix products, two FLOPs a multiply-add."""
    return 4 * math.prod(x_shape[:-1]) * math.prod(fc1_shape)


def _backward_flops(grad_shape, x_shape, fc1_shape, *args, out_shape=None, **kwargs) -> int:
    """Five: the hidden channels again, and the gradients of these, of x and of both weights."""
    return 10 * math.prod(x_shape[:-1]) * math.prod(fc1_shape)


def _register() -> None:
    register_fake("mlp", _fake)
    register_fake("mlp_backward", _fake_backward)
    register_derivative("mlp", _save, _backward)
    register_no_derivative("mlp_backward", "the MLP")
    for name, count in (("mlp", _flops), ("mlp_backward", _backward_flops)):
        if hasattr(torch.ops.iwin_d2, name):
            flop_counter.register_flop_formula(getattr(torch.ops.iwin_d2, name))(count)


if python_side_wanted(__name__):
    _register()
