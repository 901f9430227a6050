"""The backend as a fixture: tests that ask for it run once for each."""

import pytest
import torch
from op_backends import COMPILED, REFERENCE, SYMBOLIC


def _name(backend):
    return backend.name


@pytest.fixture(autouse=True)
def the_same_numbers_every_time():
    """Each test draws its random numbers from the start."""
    torch.manual_seed(0)


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
