"""Interleaved windows against one slow, obvious loop."""

import math

import pytest
import torch

from iwin_d2.ops import (
    interleaved_window_attention,
    interleaved_window_merge,
    interleaved_window_partition,
    reference,
    symbolic,
)

SIZES = [(14, 14), (13, 20), (3, 5), (1, 1), (7, 29), (22, 7)]


def slow_windows(x, window, pad):
    """Gather Tensor[B, T, H, W, C] token by token; returns [B, Gh, Gw, T * Mh * Mw, C] and the
    tokens' (t, row, column).
    """
    batch, frames, height, width, channels = x.shape
    gh, gw = math.ceil(height / window[0]), math.ceil(width / window[1])
    out = x.new_zeros(batch, gh, gw, frames * window[0] * window[1], channels)
    places = {}
    for a in range(gh):
        for b in range(gw):
            tokens = [
                (t, a + i * gh, b + j * gw)
                for t in range(frames)
                for i in range(window[0])
                for j in range(window[1])
            ]
            places[a, b] = tokens
            for n, (t, row, column) in enumerate(tokens):
                inside = row < height and column < width
                out[:, a, b, n] = x[:, t, row, column] if inside else pad
    return out, places


def slow_attention(qkv, num_heads, window, pad, scale=None):
    """Compute Tensor[B, T, H, W, C] with explicit softmax, window by window, head by head."""
    batch, frames, height, width, channels = qkv.shape
    dim = channels // 3
    head_dim = dim // num_heads
    scale = head_dim**-0.5 if scale is None else scale
    windows, places = slow_windows(qkv, window, pad)
    out = qkv.new_zeros(batch, frames, height, width, dim)
    for (a, b), tokens in places.items():
        for head in range(num_heads):
            q, k, v = (
                windows[:, a, b, :, i * dim + head * head_dim : i * dim + (head + 1) * head_dim]
                for i in range(3)
            )
            weights = (scale * q @ k.transpose(-1, -2)).softmax(-1)
            result = weights @ v
            for n, (t, row, column) in enumerate(tokens):
                if row < height and column < width:
                    out[:, t, row, column, head * head_dim : (head + 1) * head_dim] = result[:, n]
    return out


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [7, 4, (2, 5), 1])
def test_partition_and_merge(size, window):
    x = torch.randn(2, *size, 6)
    pair = (window, window) if isinstance(window, int) else window
    windows = interleaved_window_partition(x, window)
    slow, _ = slow_windows(x[:, None], pair, torch.zeros(6))
    assert torch.equal(windows, slow.flatten(0, 2))
    assert torch.equal(interleaved_window_merge(windows, window, size), x)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [7, (3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_on_images(size, window, dtype):
    torch.manual_seed(0)
    qkv = torch.randn(2, *size, 3 * 12, dtype=dtype)
    pad = torch.randn(36, dtype=dtype)
    pair = (window, window) if isinstance(window, int) else window
    for pad_qkv in (None, pad):
        out = interleaved_window_attention(qkv, 3, window, pad_qkv)
        slow = slow_attention(qkv[:, None], 3, pair, 0 if pad_qkv is None else pad)[:, 0]
        torch.testing.assert_close(out, slow, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 3])
def test_attention_on_clips_holds_all_frames(frames):
    qkv = torch.randn(2, frames, 5, 6, 3 * 8)
    out = interleaved_window_attention(qkv, 2, 3, torch.ones(24), scale=0.3)
    slow = slow_attention(qkv, 2, (3, 3), torch.ones(24), scale=0.3)
    torch.testing.assert_close(out, slow, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [(7, 7), (3, 4)])
@pytest.mark.parametrize("frames", [1, 2])
def test_indexing_for_the_exporter_equals_strided_views(size, window, frames):
    qkv = torch.randn(2, frames, *size, 3 * 12)
    for pad in (None, torch.randn(36)):
        expected = reference.attention(qkv, 3, window, pad, None)
        torch.testing.assert_close(symbolic.attention(qkv, 3, window, pad, None), expected)


@pytest.mark.parametrize("size", SIZES)
def test_without_gradients_the_result_is_the_same(size):
    qkv, pad = torch.randn(2, *size, 3 * 12), torch.randn(36)
    expected = interleaved_window_attention(qkv, 3, 7, pad)
    with torch.no_grad():
        assert torch.equal(interleaved_window_attention(qkv, 3, 7, pad), expected)


def test_windows_larger_than_the_map_are_padded_not_shrunk():
    qkv = torch.randn(1, 2, 2, 24)
    shrunk = interleaved_window_attention(qkv, 1, 2)
    padded = interleaved_window_attention(qkv, 1, 7)
    assert not torch.allclose(shrunk, padded)


@pytest.mark.parametrize("layout", ["strided channels", "channels first", "sliced"])
def test_any_layout(layout):
    if layout == "strided channels":
        qkv = torch.randn(2, 9, 8, 48)[..., ::2]
    elif layout == "channels first":
        qkv = torch.randn(2, 24, 9, 8).permute(0, 2, 3, 1)
    else:
        qkv = torch.randn(2, 12, 12, 24)[:, 2:11, 1:9]
    pad = torch.randn(24)
    expected = interleaved_window_attention(qkv.contiguous(), 2, 4, pad)
    torch.testing.assert_close(interleaved_window_attention(qkv, 2, 4, pad), expected)
    windows = interleaved_window_partition(qkv, 4)
    assert torch.equal(windows, interleaved_window_partition(qkv.contiguous(), 4))


def test_gradients():
    torch.manual_seed(0)
    qkv = torch.randn(1, 3, 5, 12, dtype=torch.float64, requires_grad=True)
    pad = torch.randn(12, dtype=torch.float64, requires_grad=True)

    def attend(qkv, pad):
        return interleaved_window_attention(qkv, 2, 2, pad)

    assert torch.autograd.gradcheck(attend, (qkv, pad))
    strided = torch.randn(1, 3, 12, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: attend(x.permute(0, 1, 3, 2), pad), strided)
    assert torch.autograd.gradcheck(
        lambda x: interleaved_window_merge(interleaved_window_partition(x, 2), 2, (3, 5)), qkv
    )


def test_empty_batch():
    out = interleaved_window_attention(torch.zeros(0, 9, 8, 24), 2, 7, torch.ones(24))
    assert out.shape == (0, 9, 8, 8)
    assert interleaved_window_partition(torch.zeros(0, 9, 8, 24), 7).shape == (0, 49, 24)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: interleaved_window_partition(torch.zeros(2, 3, 4), 7),
            r"\[B, H, W, C\].*\(2, 3, 4\)",
        ),
        (lambda: interleaved_window_partition(torch.zeros(1, 4, 4, 8), 0), "positive integer.*0"),
        (lambda: interleaved_window_partition(torch.zeros(1, 4, 4, 8), (2, 2, 2)), "pair"),
        (
            lambda: interleaved_window_merge(torch.zeros(4, 49, 8), 6, (9, 9)),
            r"\[B \* Gh \* Gw, 36, C\].*\(4, 49, 8\)",
        ),
        (
            lambda: interleaved_window_merge(torch.zeros(3, 49, 8), 7, (9, 9)),
            "3 windows.*4 windows",
        ),
        (lambda: interleaved_window_attention(torch.zeros(1, 4, 24), 2, 7), r"\(1, 4, 24\)"),
        (
            lambda: interleaved_window_attention(torch.zeros(1, 4, 4, 20), 2, 7),
            "20 channels.*2 heads",
        ),
        (lambda: interleaved_window_attention(torch.zeros(1, 4, 4, 24), 0, 7), "0 heads"),
        (
            lambda: interleaved_window_attention(torch.zeros(1, 4, 4, 24), 2, 7, torch.zeros(8)),
            r"pad_qkv of shape \(24,\).*\(8,\)",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_compiles_without_graph_breaks():
    qkv, pad = torch.randn(1, 9, 10, 24), torch.randn(24)
    compiled = torch.compile(
        lambda x, p: interleaved_window_attention(x, 2, 4, p), fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(qkv, pad), interleaved_window_attention(qkv, 2, 4, pad))
