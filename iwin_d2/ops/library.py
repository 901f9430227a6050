"""What PyTorch has to know of a compiled operator beyond its kernels: helpers to register it.

An operator's module calls these for `torch.ops.iwin_d2.<name>`, and only where `python_side_wanted`
says so: without the extension there is nothing to register for.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from . import extension

__all__ = [
    "python_side_wanted",
    "register_autocast",
    "register_derivative",
    "register_fake",
    "register_no_derivative",
]


def python_side_wanted(module: str) -> bool:
    """Whether `module`, which asks, has operators to register.

    Not without the extension, nor a second time: PyTorch takes a registration once a process, but
    modules may be imported anew. The operators' namespace lasts, and remembers.
    """
    extension.load()
    if not extension.loaded():
        return False
    done = torch.ops.iwin_d2.__dict__.setdefault("_python_side", set())
    wanted = module not in done
    done.add(module)
    return wanted


def register_fake(name: str, fake: Callable) -> None:
    """Let `fake` say shape, dtype and device of the result; sizes may be symbols."""
    if _is_defined(name):
        torch.library.register_fake(f"iwin_d2::{name}", fake)


def register_derivative(name: str, setup_context: Callable, backward: Callable) -> None:
    """Let `backward(ctx, *grads)` be the derivative, and `setup_context` save what it needs."""
    if _is_defined(name):
        torch.library.register_autograd(f"iwin_d2::{name}", backward, setup_context=setup_context)


def register_no_derivative(name: str, what: str) -> None:
    """Let whoever differentiates this operator, itself a derivative, be told what to do."""

    def refuse(ctx, *grads):
        raise RuntimeError(
            f"second derivatives of {what} are not implemented by the compiled operators: set "
            "IWIN_D2_ATTENTION=reference, and choose torch.nn.attention.SDPBackend.MATH, the one "
            "of PyTorch's own attentions that has them"
        )

    register_derivative(name, lambda ctx, inputs, output: None, refuse)


def register_autocast(name: str) -> None:
    """Under torch.autocast, cast all floating-point tensors but float64 to its dtype.

    That is what scaled_dot_product_attention does.
    """
    if not _is_defined(name):
        return
    operator = getattr(torch.ops.iwin_d2, name).default
    for device, key in (("cpu", "AutocastCPU"), ("cuda", "AutocastCUDA")):
        torch.library.impl(f"iwin_d2::{name}", key)(_casting(operator, device))


def _is_defined(name: str) -> bool:
    """False with an extension that was built from an older version of csrc."""
    return hasattr(torch.ops.iwin_d2, name)


def _casting(operator: Callable, device: str) -> Callable:
    def cast_and_call(*args):
        dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return operator(*(_cast(x, dtype) for x in args))

    return cast_and_call


def _cast(x: object, dtype: torch.dtype) -> object:
    if isinstance(x, Tensor) and x.is_floating_point() and x.dtype != torch.float64:
        return x.to(dtype)
    return x
