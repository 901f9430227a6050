"""Every backend of the operators as one parameter of the tests.

A backend is called as the public functions are. The compiled ones run on the CPU once for each
instruction set, on CUDA where there is a device.
"""

import contextlib
from dataclasses import dataclass

import pytest
import torch

from iwin_d2.ops import (
    extension,
    interleaved_window_attention,
    interleaved_window_merge,
    interleaved_window_partition,
    reference,
    symbolic,
    use_backend,
)


def devices():
    """The devices that compiled operators run on here: there is one, and the build has kernels."""
    extension.load()
    built = extension.loaded() and torch.ops.iwin_d2.attention.default.has_kernel_for_dispatch_key(
        torch.DispatchKey.CUDA
    )
    return ["cpu", *(["cuda"] if built and torch.cuda.is_available() else [])]


@dataclass(frozen=True)
class PlainBackend:
    """One of the two that are written in PyTorch."""

    name: str
    module: object
    device: str = "cpu"
    compiled = False

    @contextlib.contextmanager
    def chosen(self):
        """Nothing is to be switched."""
        yield self

    def attention(self, qkv, num_heads, window, pad=None, scale=None):
        """As iwin_d2.ops.interleaved_window_attention."""
        frames = qkv if qkv.dim() == 5 else qkv.unsqueeze(1)
        out = self.module.attention(frames, num_heads, window, pad, scale)
        return out if qkv.dim() == 5 else out.squeeze(1)

    def partition(self, x, window):
        """As iwin_d2.ops.interleaved_window_partition."""
        return self.module.partition(x.unsqueeze(1), window)

    def merge(self, windows, window, size):
        """As iwin_d2.ops.interleaved_window_merge."""
        return self.module.merge(windows, window, (1, *size)).squeeze(1)


@dataclass(frozen=True)
class CompiledBackend:
    """The operators of the extension by way of the public functions, never in PyTorch instead."""

    name: str
    device: str = "cpu"
    isa: str | None = None
    compiled = True

    attention = staticmethod(interleaved_window_attention)
    partition = staticmethod(interleaved_window_partition)
    merge = staticmethod(interleaved_window_merge)

    @contextlib.contextmanager
    def chosen(self):
        """Use it, with this instruction set, meanwhile; skip where it cannot be had."""
        if not extension.loaded():
            pytest.skip(extension.reason())
        with use_backend("compiled"), self._instruction_set():
            yield self

    @contextlib.contextmanager
    def _instruction_set(self):
        if self.isa is None:
            yield
            return
        before = torch.ops.iwin_d2.cpu_capability()
        try:
            torch.ops.iwin_d2._set_cpu_capability(self.isa)
        except ValueError as error:
            pytest.skip(str(error))
        try:
            yield
        finally:
            torch.ops.iwin_d2._set_cpu_capability(before)


ISAS = ("avx512", "avx2", "baseline")
COMPILED = [
    *(CompiledBackend(isa, isa=isa) for isa in ISAS),
    *(CompiledBackend(device, device) for device in devices() if device != "cpu"),
]
REFERENCE = PlainBackend("reference", reference)
SYMBOLIC = PlainBackend("symbolic", symbolic)
