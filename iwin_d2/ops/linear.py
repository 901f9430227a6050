"""A linear layer by the library that is fastest for it: PyTorch's own, or csrc/linear.cpp.

PyTorch's goes to MKL, which multiplies float32 with half the vectors of AVX-512 on processors of
AMD's; the compiled operator then takes half its time, forward and backward. Elsewhere it is the
second best, and not used.
"""

import functools
import math
import platform

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import flop_counter

from . import backends, checks
from .library import (
    python_side_wanted,
    register_derivative,
    register_fake,
    register_no_derivative,
)

__all__ = ["can_run", "linear"]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x weight^T + bias, as torch.nn.functional.linear does.

    Args:
        x: Tensor[..., K].
        weight: Tensor[N, K].
        bias: Tensor[N], or None.

    Returns:
        Tensor[..., N].
    """
    if backends.is_possible(can_run, x, weight):
        return torch.ops.iwin_d2.linear.default(x, weight, bias)
    return F.linear(x, weight, bias)


def can_run(x: Tensor, weight: Tensor) -> str | None:
    """Why the operator cannot, or should not, serve this call; None if it can."""
    reason = backends.why_not("linear", x, backends.effective_dtype(x))
    if reason is not None:
        return reason
    if x.dtype != weight.dtype:
        return "the compiled linear layer serves tensors of one dtype"
    reason = backends.why_not_channels("linear layer", *weight.shape)
    if reason is not None:
        return reason
    if not _is_faster():
        return "PyTorch's own linear layer is as fast on this processor"
    return None


@torch.compiler.assume_constant_result
def _is_faster() -> bool:
    return (
        _vendor() == "AuthenticAMD"
        and torch.backends.cpu.get_cpu_capability() == "AVX512"  # csrc/cpu/isa.cpp asks it, too
        and torch.backends.mkl.is_available()
    )


@functools.cache
def _vendor() -> str:
    """The vendor of the processor, as Linux gives it; empty where it does not."""
    if platform.system() != "Linux":
        return ""
    try:
        with open("/proc/cpuinfo") as file:
            line = next((line for line in file if line.startswith("vendor_id")), "")
    except OSError:
        return ""
    return line.partition(":")[2].strip()


def _fake(x, weight, bias):
    _check_matrix(weight)
    _check_channels("x", x, weight.shape[1])
    checks.check_parameter("weight", weight, weight.shape, x)
    if bias is not None:
        checks.check_parameter("bias", bias, weight.shape[:1], x)
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _fake_backward_input(grad, weight):
    _check_matrix(weight)
    _check_channels("grad", grad, weight.shape[0])
    checks.check_parameter("weight", weight, weight.shape, grad)
    return grad.new_empty(*grad.shape[:-1], weight.shape[1])


def _fake_backward_weight(grad, x):
    if grad.dim() < 1 or x.dim() < 1 or grad.shape[:-1] != x.shape[:-1]:
        raise ValueError(
            "expected grad and x that differ in their channels alone, "
            f"got shapes {tuple(grad.shape)} and {tuple(x.shape)}"
        )
    checks.check_parameter("x", x, x.shape, grad)
    return x.new_empty(grad.shape[-1], x.shape[-1]), x.new_empty(grad.shape[-1])


# These say what csrc/linear.cpp says of the same arguments.


def _check_matrix(weight) -> None:
    if weight.dim() != 2:
        raise ValueError(f"expected weight of shape [N, K], got shape {tuple(weight.shape)}")


def _check_channels(name, x, channels) -> None:
    if x.dim() < 1 or x.shape[-1] != channels:
        raise ValueError(
            f"expected {name} of {channels} channels, as weight has, got shape {tuple(x.shape)}"
        )


def _save(ctx, inputs, output):
    x, weight, bias = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, weight)


def _backward(ctx, grad):
    x, weight = ctx.saved_tensors
    grad_x = grad_weight = grad_bias = None
    if ctx.needs_input_grad[0]:
        grad_x = torch.ops.iwin_d2.linear_backward_input.default(grad, weight)
    if ctx.needs_input_grad[1]:
        grad_weight, grad_bias = torch.ops.iwin_d2.linear_backward_weight.default(grad, x)
    elif ctx.needs_input_grad[2]:
        grad_bias = grad.flatten(0, -2).sum(0) if grad.dim() > 1 else grad
    return grad_x, grad_weight, grad_bias if ctx.has_bias else None


def _flops(x_shape, weight_shape, *args, out_shape=None, **kwargs) -> int:
    return 2 * math.prod(x_shape[:-1]) * math.prod(weight_shape)


def _weight_flops(grad_shape, x_shape, *args, out_shape=None, **kwargs) -> int:
    return 2 * math.prod(grad_shape) * x_shape[-1]


def _register() -> None:
    register_fake("linear", _fake)
    register_derivative("linear", _save, _backward)
    register_fake("linear_backward_input", _fake_backward_input)
    register_fake("linear_backward_weight", _fake_backward_weight)
    for name, count in (
        ("linear", _flops),
        ("linear_backward_input", _flops),
        ("linear_backward_weight", _weight_flops),
    ):
        if hasattr(torch.ops.iwin_d2, name):
            flop_counter.register_flop_formula(getattr(torch.ops.iwin_d2, name))(count)
    register_no_derivative("linear_backward_input", "the linear layers")
    register_no_derivative("linear_backward_weight", "the linear layers")


if python_side_wanted(__name__):
    _register()
