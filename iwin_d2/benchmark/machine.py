"""The class of machine that figures belong to, in lines."""

import platform
from pathlib import Path

import torch

from ..ops import describe_backends
from .rates import Rates

__all__ = ["describe_machine", "describe_rates"]

_VENDORS = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel"}


def describe_machine() -> str:
    """The processor's vendor and instruction set, threads, PyTorch, and which operators run."""
    return (
        f"{_vendor()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, float32; "
        f"attention: {describe_backends()['interleaved_window_attention']}"
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
