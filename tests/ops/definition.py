"""Interleaved windows once more, as one slow, obvious loop: what the tests take for the truth."""

import math


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


def slow_attention(qkv, num_heads, window, pad=None, scale=None):
    """Compute Tensor[B, T, H, W, C] with explicit softmax, window by window, head by head."""
    batch, frames, height, width, channels = qkv.shape
    dim = channels // 3
    head_dim = dim // num_heads
    scale = head_dim**-0.5 if scale is None else scale
    windows, places = slow_windows(qkv, window, 0 if pad is None else pad)
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
