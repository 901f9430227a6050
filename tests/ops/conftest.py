"""The backend as a fixture: tests that ask for it run once for each, with the dtypes it serves."""

import pytest
import torch
from op_backends import COMPILED, EMULATED, REFERENCE, SYMBOLIC

MANY_PRODUCTS = 20e6


@pytest.hookimpl(tryfirst=True)  # before marks are looked at
def pytest_collection_modifyitems(config, items):
    """Leave out what a backend does not serve: the dtype of a test with one as a parameter.

    Emulated CUDA is alone, and slow.
    """
    kept, left_out = [], []
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        dtype, case = parameters.get("dtype"), parameters.get("case")
        tried = [value for value in parameters.values() if hasattr(value, "dtypes")]
        unserved = dtype is not None and any(dtype not in backend.dtypes for backend in tried)
        plain = EMULATED and not all(backend.compiled for backend in tried)
        (left_out if unserved or plain else kept).append(item)
        if EMULATED and getattr(case, "products", 0) > MANY_PRODUCTS:
            item.add_marker(pytest.mark.slow)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def _name(backend):
    return backend.name


@pytest.fixture(autouse=True)
def the_same_numbers_every_time():
    """Each test draws its random numbers from the start."""
    torch.manual_seed(0)


@pytest.fixture(autouse=EMULATED)
def memory_that_nobody_has_written_to_is_not_a_number():
    """As the emulator does with shared memory: no kernel may count on what it finds there."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # which fills what at::empty gives
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture(params=[REFERENCE, *COMPILED], ids=_name)
def backend(request):
    """Each backend of partition and merge."""
    with request.param.chosen() as chosen:
        yield chosen


@pytest.fixture(params=[REFERENCE, SYMBOLIC, *COMPILED], ids=_name)
def attention_backend(request):
    """Each backend of the attention."""
    with request.param.chosen() as chosen:
        yield chosen


@pytest.fixture(params=COMPILED, ids=_name)
def compiled_backend(request):
    """Each backend of the compiled operators."""
    with request.param.chosen() as chosen:
        yield chosen
