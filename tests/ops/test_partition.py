"""Partition and merge on every backend: copies, so every comparison is exact."""

import pytest
import torch
from cases import LAYOUTS, WINDOWS, lay_out, sizes_of
from definition import slow_windows
from hypothesis import given, settings
from hypothesis import strategies as st
from op_backends import REFERENCE

DTYPES = [
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int16,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.complex128,
]


def numbered(shape, dtype):
    """A map whose values differ as far as the dtype can tell."""
    x = torch.arange(1, torch.Size(shape).numel() + 1).view(shape)
    return x % 3 == 0 if dtype == torch.bool else x.to(dtype)


def assert_round_trip(backend, x, window):
    """Compare with the slow loop, and merge back."""
    before = x.clone()
    _, *size, channels = x.shape
    windows = backend.partition(x.to(backend.device), window)
    slow, _ = slow_windows(x[:, None], window, torch.zeros(channels, dtype=x.dtype))
    assert torch.equal(windows.cpu(), slow.flatten(0, 2))
    assert torch.equal(backend.merge(windows, window, tuple(size)).cpu(), x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_windows_and_sizes(backend, window):
    for number, size in enumerate(sizes_of(window)):
        assert_round_trip(backend, torch.randn(1 + number % 2, *size, 1 + number), window)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [5, 8])
@pytest.mark.parametrize("element", DTYPES, ids=str)
def test_layouts_and_dtypes(backend, element, channels, layout):
    # The places around a slice that must not be read are NaN, which not every dtype has.
    if layout == "sliced" and not element.is_floating_point:
        x = numbered((2, 10, 11, channels + 4), element)[:, 1:8, 2:11, 3:-1]
    else:
        x = lay_out(numbered((2, 7, 9, channels), element), layout)
    assert_round_trip(backend, x, (3, 4))
    windows = backend.partition(x.to(backend.device), (3, 4))
    # Windows in another layout: Tensor[N, 12, C] as a map of one row.
    strided = lay_out(windows.unsqueeze(1), "channels first" if layout == "sliced" else layout)
    merged = backend.merge(strided.squeeze(1), (3, 4), (7, 9))
    if layout != "expanded":
        assert torch.equal(merged.cpu(), x)
    assert torch.equal(merged, backend.merge(strided.squeeze(1).contiguous(), (3, 4), (7, 9)))


@pytest.mark.parametrize("channels", [3, 16])
def test_strides_of_more_than_32_bits(compiled_backend, channels):
    # Memory that is not touched need not be there, at least on the CPU.
    memory = torch.empty(2**32 + 10_000, dtype=torch.uint8, device=compiled_backend.device)
    x = memory.as_strided((2, 5, 7, channels), (2**32, 7 * channels, channels, 1))
    x.copy_(torch.arange(x.numel()).view(x.shape) % 251)
    windows = compiled_backend.partition(x, (3, 4))
    assert torch.equal(windows, compiled_backend.partition(x.contiguous(), (3, 4)))


@pytest.mark.parametrize("element", [torch.complex64, torch.complex128], ids=str)
def test_lazily_conjugated_input(backend, element):
    x = torch.randn(1, 3, 4, 2, dtype=element).conj()
    assert x.is_conj()
    assert_round_trip(backend, x, (2, 3))


def test_not_a_number_is_copied_like_any_other_value(backend):
    x = torch.full((1, 3, 4, 2), float("nan"))
    windows = backend.partition(x.to(backend.device), (2, 3))
    assert windows.isnan().sum() == x.numel()
    assert (windows[~windows.isnan()] == 0).all()


@pytest.mark.parametrize("shape", [(0, 9, 8, 24), (2, 3, 4, 0)])
def test_nothing_to_copy(backend, shape):
    windows = backend.partition(torch.zeros(shape, device=backend.device), (7, 7))
    groups = -(-shape[1] // 7) * -(-shape[2] // 7)
    assert windows.shape == (shape[0] * groups, 49, shape[3])
    assert backend.merge(windows, (7, 7), shape[1:3]).shape == shape


@given(
    window=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    shape=st.tuples(*(st.integers(1, limit) for limit in (3, 20, 20, 6))),
    layout=st.sampled_from(LAYOUTS),
)
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def check_random_shapes(backend, window, shape, layout):
    assert_round_trip(backend, lay_out(torch.randn(shape), layout), window)


def test_random_shapes(backend):
    check_random_shapes(backend)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_is_the_derivative_of_the_other(backend, layout):
    x = torch.randn(2, 5, 7, 3, dtype=torch.float64, device=backend.device, requires_grad=True)
    windows = backend.partition(x, (3, 2))
    grad = lay_out(torch.randn_like(windows).unsqueeze(1), layout).squeeze(1)
    (grad_x,) = torch.autograd.grad(windows, x, grad)
    assert torch.equal(grad_x, backend.merge(grad, (3, 2), (5, 7)))

    windows = windows.detach().requires_grad_()
    merged = backend.merge(windows, (3, 2), (5, 7))
    grad = lay_out(torch.randn_like(merged), layout)
    (grad_windows,) = torch.autograd.grad(merged, windows, grad)
    assert torch.equal(grad_windows, backend.partition(grad, (3, 2)))


def test_gradcheck(backend):
    def there_and_back(x):
        return backend.merge(backend.partition(x, (2, 3)).sin(), (2, 3), (3, 5))

    x = torch.randn(2, 3, 5, 2, dtype=torch.float64, device=backend.device, requires_grad=True)
    assert torch.autograd.gradcheck(there_and_back, x)
    assert torch.autograd.gradgradcheck(there_and_back, x)


def test_any_number_of_threads(compiled_backend):
    x = torch.randn(3, 50, 70, 40)
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            windows = compiled_backend.partition(x, (7, 7))
            assert torch.equal(windows, REFERENCE.partition(x, (7, 7)))
            assert torch.equal(compiled_backend.merge(windows, (7, 7), (50, 70)), x)
    finally:
        torch.set_num_threads(threads)
