"""Which backend serves a call: the compiled operators where they can, else the reference.

The environment variable IWIN_D2_ATTENTION, read once at import, decides for all operators:

    auto        compiled where possible (the default); else the reference, with the reason logged
    compiled    compiled, or an error with the reason
    reference   plain PyTorch

What compiled operators serve stands in `OPERATORS`; `why_not` says why a call is not among it.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..errors import ConfigError, shown_at_import
from . import extension

__all__ = [
    "OPERATORS",
    "choose",
    "describe_backends",
    "describe_operators",
    "effective_dtype",
    "is_possible",
    "use_backend",
    "why_not",
    "why_not_channels",
]

_VARIABLE = "IWIN_D2_ATTENTION"
_NAMES = ("auto", "compiled", "reference")
_KEYS = {"cpu": torch.DispatchKey.CPU, "cuda": torch.DispatchKey.CUDA}

_MULTIPLE = 16  # of channels: the vectors of the widest instruction set

_Dtypes = tuple[torch.dtype, ...] | None  # None: all
_ANY: dict[str, _Dtypes] = {"cpu": None, "cuda": None}
_FLOATS: dict[str, _Dtypes] = {
    "cpu": (torch.float32, torch.bfloat16, torch.float64),
    "cuda": (torch.float32, torch.bfloat16, torch.float16),
}
_FLOAT32: dict[str, _Dtypes] = {"cpu": (torch.float32,)}

# Operator of the extension -> the public function that it serves, and with which dtypes where.
OPERATORS: dict[str, tuple[str, dict[str, _Dtypes]]] = {
    "partition": ("interleaved_window_partition", _ANY),
    "merge": ("interleaved_window_merge", _ANY),
    "attention": ("interleaved_window_attention", _FLOATS),
    "depthwise_conv_add": ("depthwise_conv_add", _FLOATS),
    "bias_gelu": ("bias_gelu", _FLOATS),
    "iwin_block": ("IwinBlock without gradients", _FLOAT32),
    "downsample": ("Downsample without gradients", _FLOAT32),
    "linear": ("linear layers of a block", _FLOAT32),
    "mlp": ("MLP of a block", _FLOAT32),
}

# Reasons that are as they should be.
_EXPORT = "an exported program has to run without the extension"
_TRANSFORM = "torch.func and forward-mode derivatives want operators that PyTorch itself has"

logger = logging.getLogger(__name__)


def _from_environment() -> str:
    value = os.environ.get(_VARIABLE, "").strip().lower() or "auto"
    if value not in _NAMES:
        raise shown_at_import(
            ConfigError(
                f"{_VARIABLE}={value!r} is not known: set it to one of {', '.join(_NAMES)}, "
                "or unset it."
            )
        )
    return value


_wanted = _from_environment()
_logged: set[str] = set()


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within the context, choose as IWIN_D2_ATTENTION=`name` would, in all threads.

    Args:
        name: "auto", "compiled" or "reference".

    Raises:
        ValueError: another name.
    """
    global _wanted
    if name not in _NAMES:
        raise ValueError(f"expected a backend out of {', '.join(_NAMES)}, got {name!r}")
    before, _wanted = _wanted, name
    try:
        yield
    finally:
        _wanted = before


def choose(can_run: Callable[..., str | None], *args) -> bool:
    """Whether the compiled operator is to serve a call.

    Args:
        can_run: says why it cannot serve the call; None if it can.
        *args: what `can_run` is called with.

    Raises:
        ConfigError: it cannot, and nothing else is wanted.
    """
    if _wanted == "reference":
        return False
    reason = can_run(*args)
    if reason is None:
        return True
    if _wanted == "compiled":
        raise ConfigError(
            f"the compiled operators are asked for ({_VARIABLE}=compiled), but {reason}; "
            "unset the variable to go on in plain PyTorch"
        )
    _log_once(reason)
    return False


def is_possible(can_run: Callable[..., str | None], *args) -> bool:
    """Whether a compiled operator may stand for several others, where that is but faster.

    Unlike `choose` it never raises, and logs nothing: those others are served all the same.
    """
    return _wanted != "reference" and can_run(*args) is None


def why_not(name: str, x: Tensor, dtype: torch.dtype | None = None) -> str | None:
    """Why the compiled operator `name` cannot serve a call with the tensor `x`; None if it can.

    Args:
        name: one of `OPERATORS`.
        x: the first argument.
        dtype: the dtype it will have got, where that is not its own.
    """
    if not extension.loaded():
        return extension.reason()
    reason = _why_not_here()
    if reason is not None:
        return reason
    device = x.device.type
    if device not in _DEVICES[name]:
        return f"this build of the extension has no {name} for {device}"
    # Nothing is computed on meta, which stands for any device.
    dtypes, dtype = OPERATORS[name][1].get(device), dtype or x.dtype
    if dtypes is not None and dtype not in dtypes:
        unserved = str(dtype).removeprefix("torch.")
        return f"the compiled {name} serves {_names(dtypes)} on {device}, not {unserved}"
    return None


def why_not_channels(name: str, *counts: int, numbers: str = "") -> str | None:
    """Why an operator made of matrix products cannot serve so many channels; None if it can.

    `numbers` are the counts as the reason gives them.
    """
    if all(count % _MULTIPLE == 0 for count in counts):
        return None
    # Not str(count): torch.compile can format a symbolic size, but not call str on it.
    numbers = numbers or " and ".join([f"{count}" for count in counts])
    return f"the compiled {name} serves channels that are multiples of {_MULTIPLE}, not {numbers}"


def effective_dtype(x: Tensor) -> torch.dtype:
    """The dtype that an operator registered for autocast computes this floating tensor in."""
    device = x.device.type
    if device in _KEYS and x.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def describe_backends() -> dict[str, str]:
    """Say which backend serves each public operator, and where, or why not: one line each."""
    return {public: _describe(name) for name, (public, _) in OPERATORS.items()}


def describe_operators() -> str:
    """Say in one line whether the compiled operators run here, of what kind, or why not."""
    if _wanted == "reference":
        return f"operators: plain PyTorch; {_VARIABLE}=reference"
    return extension.describe_extension()


def _describe(name: str) -> str:
    if _wanted == "reference":
        return f"reference (plain PyTorch): {_VARIABLE}=reference"
    if not extension.loaded():
        what = "none" if _wanted == "compiled" else "reference (plain PyTorch)"
        return f"{what}: {extension.reason()}"
    served = [
        f"{_device(device)}: {_names(dtypes)}"
        for device, dtypes in OPERATORS[name][1].items()
        if device in _DEVICES[name]
    ]
    return f"compiled on {'; '.join(served) or 'no device'}"


def _device(name: str) -> str:
    return f"cpu ({torch.ops.iwin_d2.cpu_capability()})" if name == "cpu" else name


def _names(dtypes: _Dtypes) -> str:
    return ", ".join(str(x).removeprefix("torch.") for x in dtypes) if dtypes else "any dtype"


def _why_not_here() -> str | None:
    """Why no compiled operator can serve a call made here and now, whatever it is called with."""
    if _is_exporting() or torch.jit.is_tracing():
        return _EXPORT
    if _in_transform():
        return _TRANSFORM
    return None


def _is_exporting() -> bool:
    """Whether torch.export looks on; torch.compiler's own function takes torch.compile for it."""
    flag = getattr(torch.compiler, "_is_exporting_flag", None)
    return torch.compiler.is_exporting() if flag is None else flag


@torch.compiler.assume_constant_result  # torch.compile has guards of its own for it
def _in_transform() -> bool:
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


@torch.compiler.assume_constant_result  # said while torch.compile traces, not by what it makes
def _log_once(reason: str) -> None:
    if reason not in _logged:
        _logged.add(reason)
        level = logging.INFO if reason in (_EXPORT, _TRANSFORM) else logging.WARNING
        logger.log(level, "operators run in plain PyTorch: %s", reason)


def _devices_with_kernel(name: str) -> tuple[str, ...]:
    """The devices that this build has a kernel for; meta, where nothing is computed, among them."""
    if not hasattr(torch.ops.iwin_d2, name):  # an extension of another version of this package
        return ()
    operator = getattr(torch.ops.iwin_d2, name).default
    served = (device for device, key in _KEYS.items() if operator.has_kernel_for_dispatch_key(key))
    return (*served, "meta")


extension.load()
_DEVICES = {name: _devices_with_kernel(name) for name in OPERATORS}
