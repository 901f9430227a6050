"""The public functions: what they accept, and that whoever serves them makes no difference."""

import cases
import pytest
import torch
from cases import TOLERANCES
from definition import slow_attention, slow_windows

from iwin_d2.ops import (
    interleaved_window_attention,
    interleaved_window_merge,
    interleaved_window_partition,
    reference,
    use_backend,
)

SIZES = [(14, 14), (13, 20), (3, 5), (1, 1), (7, 29), (22, 7)]


@pytest.fixture(params=["auto", "reference"], autouse=True)
def chosen(request):
    """Compiled where that is possible, and plain PyTorch."""
    with use_backend(request.param):
        yield request.param


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [7, 4, (2, 5), [3, 1], 1])
def test_windows_are_a_number_or_a_pair(size, window):
    pair = (window, window) if isinstance(window, int) else tuple(window)
    x = torch.randn(2, *size, 6)
    windows = interleaved_window_partition(x, window)
    slow, _ = slow_windows(x[:, None], pair, torch.zeros(6))
    assert torch.equal(windows, slow.flatten(0, 2))
    for shape in (size, list(size), torch.Size(size)):
        assert torch.equal(interleaved_window_merge(windows, window, shape), x)
    qkv = torch.randn(1, *size, 3 * 8)
    out = interleaved_window_attention(qkv, 1, window)
    slow = slow_attention(qkv[:, None], 1, pair)[:, 0]
    torch.testing.assert_close(out, slow, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frames", [None, 3])
def test_a_row_for_the_padding_and_a_scale(frames):
    shape = (2, 5, 7, 48) if frames is None else (2, frames, 5, 7, 48)
    qkv, pad = torch.randn(shape), torch.randn(48)
    maps = qkv.unsqueeze(1) if frames is None else qkv
    for pad_qkv in (None, pad):
        for scale in (None, 0.3, 1, -2.0):
            out = interleaved_window_attention(qkv, 2, 3, pad_qkv, scale)
            slow = slow_attention(maps, 2, (3, 3), pad_qkv, scale).view(out.shape)
            torch.testing.assert_close(out, slow, rtol=1e-5, atol=1e-5)


def test_windows_larger_than_the_map_are_padded_not_shrunk():
    qkv = torch.randn(1, 2, 2, 24)
    shrunk = interleaved_window_attention(qkv, 1, 2)
    padded = interleaved_window_attention(qkv, 1, 7)
    assert not torch.allclose(shrunk, padded)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("pad_dtype", TOLERANCES, ids=str)
def test_the_row_of_the_padding_takes_the_dtype_of_the_map(dtype, pad_dtype):
    qkv = torch.randn(1, 5, 4, 24).to(dtype)
    pad = torch.randn(24).to(pad_dtype).requires_grad_()
    out = interleaved_window_attention(qkv, 1, 3, pad)
    assert out.dtype == dtype
    assert torch.equal(out, interleaved_window_attention(qkv, 1, 3, pad.to(dtype)))
    out.sum().backward()
    assert pad.grad.dtype == pad_dtype


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_result_is_the_same(size, context):
    qkv, pad = torch.randn(2, *size, 3 * 24), torch.randn(72)
    expected = interleaved_window_attention(qkv, 3, 7, pad)
    windows = interleaved_window_partition(qkv, 7)
    with context():
        assert torch.equal(interleaved_window_attention(qkv, 3, 7, pad), expected)
        assert torch.equal(interleaved_window_partition(qkv, 7), windows)
        assert torch.equal(interleaved_window_merge(windows, 7, size), qkv)


def test_dtypes_that_only_plain_pytorch_serves():
    qkv = torch.randn(1, 5, 4, 24, dtype=torch.float16)
    out = interleaved_window_attention(qkv, 1, 3)
    assert out.dtype == torch.float16
    slow = slow_attention(qkv[:, None].double(), 1, (3, 3))[:, 0]
    torch.testing.assert_close(out.double(), slow, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("channels", [3, 12, 36, 3 * 136])
def test_head_dimensions_that_only_plain_pytorch_serves(channels):
    qkv = torch.randn(1, 5, 4, channels)
    out = interleaved_window_attention(qkv, 1, 3)
    slow = slow_attention(qkv[:, None], 1, (3, 3))[:, 0]
    torch.testing.assert_close(out, slow, rtol=1e-5, atol=1e-5)


def test_a_map_of_one_frame_is_an_image():
    for case in cases.some(cases.ON_IMAGES, 10):
        qkv, pad, _ = case.inputs(torch.float32)
        out = interleaved_window_attention(qkv, case.heads, case.window, pad, case.scale)
        clip = interleaved_window_attention(
            qkv.unsqueeze(1), case.heads, case.window, pad, case.scale
        )
        assert clip.shape == (len(out), 1, *out.shape[1:])
        torch.testing.assert_close(clip.squeeze(1), out, rtol=1e-6, atol=1e-6)


def test_meta_tensors_have_the_same_shapes():
    for case in cases.some(cases.ALL, 10):
        qkv = torch.empty(case.shape, device="meta")
        out = interleaved_window_attention(qkv, case.heads, case.window)
        assert out.shape == (*case.shape[:-1], case.shape[-1] // 3)
        if case.frames is None:
            windows = interleaved_window_partition(qkv, case.window)
            groups = reference.group_counts(case.size, case.window)
            tokens = case.window[0] * case.window[1]
            assert windows.shape == (case.batch * groups[0] * groups[1], tokens, case.shape[-1])
            assert interleaved_window_merge(windows, case.window, case.size).shape == case.shape
