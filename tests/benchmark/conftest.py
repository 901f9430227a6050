"""A GPU that is none, so that what is measured on one runs without."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from iwin_d2.benchmark import rates
from iwin_d2.benchmark.target import Gpu


class Event:
    """A CUDA event: the device is done with each within a millisecond of the one before."""

    clock = itertools.count()

    def __init__(self, enable_timing=False):
        assert enable_timing
        self.time = None

    def record(self):
        self.time = next(self.clock)

    def query(self):
        assert self.time is not None
        return False

    def elapsed_time(self, end):
        return float(end.time - self.time)


@pytest.fixture
def gpu(monkeypatch):
    """A target whose tensors are the processor's and whose clock and memory are made up."""
    calls = []

    def note(name, result=None):
        def called(*args):
            calls.append(name)
            return result

        monkeypatch.setattr(torch.cuda, name, called)

    for name in ("synchronize", "_sleep", "reset_peak_memory_stats", "empty_cache"):
        note(name)
    note("memory_allocated", 3 * 2**20)
    note("max_memory_allocated", 10 * 2**20)
    note("current_device", 0)
    properties = SimpleNamespace(
        name="Made-up GPU", multi_processor_count=3, total_memory=2**33, major=9, minor=0
    )
    note("get_device_properties", properties)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(rates, "_COPIED_ON_GPU", 2**12)
    monkeypatch.setattr(rates, "_PRODUCT_ON_GPU", (4, 8, 4))
    return Gpu(device="cpu")
