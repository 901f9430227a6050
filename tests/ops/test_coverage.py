"""What the other files try: nothing is left out in silence."""

import os
import platform
import shutil
import sys
from pathlib import Path

import cases
import pytest
import torch
from op_backends import COMPILED, ISAS, devices, not_emulated

from iwin_d2.ops import backends, extension

ROOT = Path(__file__).resolve().parents[2]
needs_extension = pytest.mark.skipif(not extension.loaded(), reason=extension.reason() or "-")


def test_where_there_is_a_compiler_there_are_compiled_operators():
    """In the project's own environment a missing extension is an error, not a skip."""
    if os.environ.get("IWIN_D2_BUILD") == "none":
        pytest.skip("IWIN_D2_BUILD=none asks for an environment without compiled operators")
    if Path(sys.prefix).resolve() != ROOT / ".venv":
        pytest.skip(f"{sys.prefix} is not the environment that `make` keeps")
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("there is no C++ compiler")
    assert extension.loaded(), extension.reason()


@needs_extension
@not_emulated
def test_each_instruction_set_of_this_processor_is_tried():
    tried = []
    for backend in COMPILED:
        try:
            with backend.chosen():
                tried.append(torch.ops.iwin_d2.cpu_capability())
        except pytest.skip.Exception:
            pass
    # The tests change it and change it back.
    assert torch.ops.iwin_d2.cpu_capability() == tried[0]
    best = {"AVX512": 0, "AVX2": 1}.get(torch.backends.cpu.get_cpu_capability(), 2)
    assert tried == list(ISAS[best:] if platform.machine() in ("x86_64", "AMD64") else ISAS[2:])


@needs_extension
@pytest.mark.parametrize("name", backends.OPERATORS)
def test_each_operator_has_a_kernel(name):
    operator = getattr(torch.ops.iwin_d2, name).default
    on_the_cpu = operator.has_kernel_for_dispatch_key(torch.DispatchKey.CPU)
    assert on_the_cpu == ("cpu" in backends.OPERATORS[name][1])


@needs_extension
@pytest.mark.parametrize("name", ["partition", "merge", "attention", "attention_backward"])
def test_each_device_that_is_tried_has_the_kernels_of_windows(name):
    operator = getattr(torch.ops.iwin_d2, name).default
    for device in devices():
        assert operator.has_kernel_for_dispatch_key(getattr(torch.DispatchKey, device.upper()))


@needs_extension
def test_an_unknown_instruction_set_is_named():
    before = torch.ops.iwin_d2.cpu_capability()
    with pytest.raises(ValueError, match=r"avx512, avx2 or baseline, got sse9"):
        torch.ops.iwin_d2._set_cpu_capability("sse9")
    assert torch.ops.iwin_d2.cpu_capability() == before


def test_the_cases_hold_what_they_promise():
    images, clips = cases.ON_IMAGES, cases.ON_CLIPS
    assert {c.window for c in images} >= {(side, side) for side in range(1, 17)}
    assert {c.head_dim for c in images} == set(range(8, 129, 8))
    assert {c.heads for c in cases.ALL} >= {1, 2, 3, 4, 6, 8, 12, 16, 24, 32}
    assert {c.frames for c in clips} == set(range(1, 17))
    assert {c.batch for c in cases.ALL} >= {0, 1, 2, 3}
    assert max(c.frames * c.window[0] * c.window[1] for c in clips) == 784
    for chosen in (images, cases.some(cases.ALL, 3), cases.some(cases.ALL, 3, offset=1)):
        assert {c.layout for c in chosen} == {c.grad_layout for c in chosen} == set(cases.LAYOUTS)
        assert {c.pad for c in chosen} == {True, False}
        assert {c.scale for c in chosen} == {None, 0.3}
        assert any(c.size[0] < c.window[0] for c in chosen)
        assert any(c.size[0] % c.window[0] == c.size[1] % c.window[1] == 0 for c in chosen)
