"""Every backend of the operators as one parameter of the tests.

A backend is called as the public functions are. The compiled ones run on the CPU once for each
instruction set, on CUDA where there is a device. The extension of tests/cuda_emulator holds the
kernels of CUDA, registered for the CPU: where it is loaded, it is the only compiled backend.
"""

import contextlib
from dataclasses import dataclass

import pytest
import torch

from iwin_d2.ops import (
    backends,
    extension,
    interleaved_window_attention,
    interleaved_window_merge,
    interleaved_window_partition,
    reference,
    symbolic,
    use_backend,
)

DTYPES = dict(backends.OPERATORS["attention"][1])


def _is_emulated():
    extension.load()
    return extension.loaded() and "emulated CUDA" in torch.ops.iwin_d2.build_info()


def _serve_on_the_cpu_what_cuda_serves():
    """Tell the package what it need not know: that these kernels for the CPU are CUDA's."""
    for name, (public, dtypes) in backends.OPERATORS.items():
        of_cuda = {"cpu": dtypes["cuda"]} if "cuda" in dtypes else {}
        backends.OPERATORS[name] = (public, of_cuda)


EMULATED = _is_emulated()
if EMULATED:
    _serve_on_the_cpu_what_cuda_serves()
not_emulated = pytest.mark.skipif(EMULATED, reason="is about the CPU's own kernels")


def devices():
    """The devices that compiled operators run on here: there is one, and the build has kernels."""
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
    dtypes = (torch.float32, torch.bfloat16, torch.float64)
    # Whether an infinite number stays one; where it is split into a sum of two, it becomes NaN.
    keeps_infinities = True
    # Whether the attention's weights and their gradients are rounded to the dtype.
    rounds_weights = True

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
    kernels: str = "cpu"  # of which device
    compiled = True

    attention = staticmethod(interleaved_window_attention)
    partition = staticmethod(interleaved_window_partition)
    merge = staticmethod(interleaved_window_merge)

    @property
    def dtypes(self):
        """What the kernels with floating-point numbers serve."""
        return DTYPES[self.kernels]

    @property
    def keeps_infinities(self):
        """As PlainBackend's."""
        return self.kernels != "cuda"

    @property
    def rounds_weights(self):
        """As PlainBackend's: matrix products of 16-bit numbers take nothing else."""
        return self.kernels == "cuda"

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
if EMULATED:
    COMPILED = [CompiledBackend("emulated_cuda", kernels="cuda")]
else:
    COMPILED = [CompiledBackend(isa, isa=isa) for isa in ISAS]
    COMPILED += [CompiledBackend(d, d, kernels=d) for d in devices() if d != "cpu"]
REFERENCE = PlainBackend("reference", reference)
SYMBOLIC = PlainBackend("symbolic", symbolic)
