"""Tests on a GPU; without one each is skipped with the reason. `make test-cuda` runs them all."""

import os

import pytest
import torch
from small_models import DEVICE

from iwin_d2.ops import extension

# cuBLAS reads it when it starts, and repeats its results to the bit.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def why_not():
    """Why nothing can be tested here; None if it can."""
    if not torch.cuda.is_available():
        return "there is no CUDA device here: make test-cuda runs this on a machine that has one"
    if not extension.loaded():
        return extension.reason()
    if not torch.ops.iwin_d2.attention.default.has_kernel_for_dispatch_key(torch.DispatchKey.CUDA):
        return "the extension is built without CUDA kernels: IWIN_D2_BUILD=cuda make build"
    return None


@pytest.fixture(autouse=True, scope="session")
def on_a_gpu():
    """Skip where there is none."""
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def the_same_numbers_every_time(on_a_gpu):
    """Random numbers from the start, and products in the precision that the dtype has."""
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@pytest.fixture
def deterministic():
    """Only algorithms that give the same bits again."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def free_memory():
    """Return a function that skips unless so many GiB of the device are free."""
    torch.cuda.empty_cache()

    def skip_unless(gibibytes):
        free = torch.cuda.mem_get_info()[0] / 2**30
        if free < gibibytes:
            pytest.skip(f"{free:.0f} GiB of {DEVICE} are free, and this takes {gibibytes}")

    yield skip_unless
    torch.cuda.empty_cache()
