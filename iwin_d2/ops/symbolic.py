"""The same attention by indexing, for sizes that are symbols (torch.export, torch.compile).

The strided views of `reference` pad and crop by amounts that follow from height and width; with
symbols for these, the exporter would have to prove facts about every such amount and pins the
size down instead. Indexing needs no such proof: each shape below is a plain count.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .reference import group_counts

__all__ = ["attention"]


def attention(
    qkv: Tensor,
    num_heads: int,
    window: tuple[int, int],
    pad_qkv: Tensor | None,
    scale: float | None,
) -> Tensor:
    """Attention inside each window of Tensor[B, T, H, W, 3 * C]; returns Tensor[B, T, H, W, C]."""
    frames, height, width = qkv.shape[1:4]
    device = qkv.device
    groups = group_counts((height, width), window)
    # One window more than there are: a count that may be 1 would be pinned down as well.
    n = torch.arange(groups[0] * groups[1] + 1, device=device)[:, None, None]
    a, b = _divide(n, groups[1])
    row = a + groups[0] * torch.arange(window[0], device=device)[:, None]
    column = b + groups[1] * torch.arange(window[1], device=device)
    inside = ((row < height) & (column < width)).flatten(1)  # [windows, tokens of a frame]
    token = torch.where(inside, (row * width + column).flatten(1), 0)

    x = qkv.flatten(2, 3)[:, :, token]  # [B, T, windows, tokens of a frame, 3 * C]
    x = torch.where(inside[..., None], x, 0 if pad_qkv is None else pad_qkv.to(x.dtype))
    # ONNX has attention for four dimensions: images and windows count as one.
    x = x.transpose(1, 2).flatten(2, 3).flatten(0, 1)
    q, k, v = x.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    out = F.scaled_dot_product_attention(q, k, v, scale=scale)
    out = out.transpose(1, 2).reshape(
        qkv.shape[0], n.shape[0], frames, window[0] * window[1], qkv.shape[-1] // 3
    )
    out = out.transpose(1, 2)

    row, column = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    (i, a), (j, b) = _divide(row, groups[0]), _divide(column, groups[1])
    return out[:, :, a * groups[1] + b, i * window[1] + j]


def _divide(n: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Return quotient and remainder; ONNX has no remainder by a size that is not known."""
    quotient = n // by
    return quotient, n - quotient * by
