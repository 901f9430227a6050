"""The class of machine that figures belong to, in lines."""

import platform
from pathlib import Path

import torch

from ..ops import describe_backends
from .rates import Rates
from .target import CPU, Target

__all__ = ["describe_machine", "describe_rates"]

_VENDORS = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel"}


def describe_machine(target: Target = CPU) -> str:
    """The device, PyTorch, the dtype, and which operators run.

    Of a processor its vendor, instruction set and threads.
    """
    dtype = str(target.dtype).removeprefix("torch.")
    return (
        f"{_gpu() if target.is_gpu else _processor()}, torch {torch.__version__}, {dtype}; "
        f"attention: {describe_backends()['interleaved_window_attention']}"
    )


def _processor() -> str:
    return (
        f"{_vendor()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, "
        f"{torch.get_num_threads()} threads"
    )


def _gpu() -> str:
    found = torch.cuda.get_device_properties(torch.cuda.current_device())
    return (
        f"{found.name}, {found.multi_processor_count} multiprocessors, "
        f"{found.total_memory / 2**30:.0f} GiB, compute capability {found.major}.{found.minor}, "
        f"CUDA {torch.version.cuda}"
    )


def describe_rates(rates: Rates) -> str:
    """The machine's rates, which floors and shares are computed from."""
    return f"{rates.describe()}; each table measures its own again, and takes the fastest product's"


def _vendor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")]
    return _VENDORS.get(names[0], names[0]) if names else ""
