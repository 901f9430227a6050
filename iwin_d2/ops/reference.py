"""The plain-PyTorch backend: the definition that every other backend is compared with.

Works on maps with frames, Tensor[B, T, H, W, C]; an image is a map of one frame. Sizes may be
symbolic (torch.compile and torch.export with dynamic height and width).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["attention", "group_counts", "merge", "partition"]


def group_counts(size: tuple[int, int], window: tuple[int, int]) -> tuple[int, int]:
    """Return (Gh, Gw), the windows of a map of `size` (H, W) along each side."""
    # The ceiling written so that symbolic sizes of all stages stay of the form (H - 1) // k + 1.
    return tuple((side - 1) // m + 1 for side, m in zip(size, window))


def partition(x: Tensor, window: tuple[int, int], pad_value: Tensor | None = None) -> Tensor:
    """Gather Tensor[B, T, H, W, C] into Tensor[B * Gh * Gw, T * M_h * M_w, C]."""
    batch, frames, height, width, channels = x.shape
    groups = group_counts((height, width), window)
    x = _pad(x, groups[0] * window[0] - height, groups[1] * window[1] - width, pad_value)
    # Row r = i * Gh + a belongs to window a as its i-th row, so a plain view splits rows into
    # (i, a) and columns into (j, b); the reshape below is the only copy.
    x = x.reshape(batch, frames, window[0], groups[0], window[1], groups[1], channels)
    x = x.permute(0, 3, 5, 1, 2, 4, 6)
    return x.reshape(batch * groups[0] * groups[1], frames * window[0] * window[1], channels)


def merge(windows: Tensor, window: tuple[int, int], size: tuple[int, int, int]) -> Tensor:
    """Scatter windows back to Tensor[B, T, H, W, C] for `size` (T, H, W), padding cropped."""
    frames, height, width = size
    groups = group_counts((height, width), window)
    batch = windows.shape[0] // (groups[0] * groups[1])
    channels = windows.shape[-1]
    x = windows.reshape(batch, groups[0], groups[1], frames, window[0], window[1], channels)
    x = x.permute(0, 3, 4, 1, 5, 2, 6)
    x = x.reshape(batch, frames, window[0] * groups[0], window[1] * groups[1], channels)
    return x[:, :, :height, :width]


def attention(
    qkv: Tensor,
    num_heads: int,
    window: tuple[int, int],
    pad_qkv: Tensor | None,
    scale: float | None,
) -> Tensor:
    """Attention inside each window of Tensor[B, T, H, W, 3 * C]; returns Tensor[B, T, H, W, C]."""
    size = tuple(qkv.shape[1:4])
    windows = partition(qkv, window, pad_qkv)
    # q, k and v are strided views of the windows: [windows, heads, tokens, head dimension].
    q, k, v = windows.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    out = F.scaled_dot_product_attention(q, k, v, scale=scale)
    return merge(out.transpose(1, 2).flatten(2), window, size)


def _pad(x: Tensor, rows: int, columns: int, value: Tensor | None) -> Tensor:
    """Append `columns` columns on the right and `rows` rows at the bottom, each token `value`."""
    # While tracing, sizes may be symbolic, and a branch on them would pin them down.
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if not tracing and rows == 0 and columns == 0:
        return x
    if value is None:
        return F.pad(x, (0, 0, 0, columns, 0, rows))
    batch, frames, height, width, channels = x.shape
    value = value.to(x.dtype)
    if not (torch.is_grad_enabled() or tracing):
        # One copy instead of two; with gradients, writing into slices would cost more later.
        out = x.new_empty(batch, frames, height + rows, width + columns, channels)
        out[:, :, :height, :width] = x
        out[:, :, :height, width:] = value
        out[:, :, height:] = value
        return out
    right = value.expand(batch, frames, height, columns, channels)
    bottom = value.expand(batch, frames, rows, width + columns, channels)
    return torch.cat((torch.cat((x, right), dim=3), bottom), dim=2)
