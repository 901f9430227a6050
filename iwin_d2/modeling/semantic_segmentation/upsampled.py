"""A 3x3 convolution of maps of several sizes, without the coarse ones being upsampled first.

Upsampling mixes pixels, each channel by itself; a convolution mixes channels and adds up shifted
pixels. So channels can be mixed while the map is still small, by the nine taps of the kernel, and
what they give be upsampled, shifted and added up:

    conv(up(x)) = sum over taps of shift(up(W[tap] x))

Of the four levels of a UPerNet's last convolution only the finest then takes its full number of
multiply-adds, of the others a quarter and less. Upsampling and shift are matrices of one side each.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...d2.layers import Conv2d
from ...ops.linear import linear
from ..untouched import is_untouched
from .head import resize

__all__ = ["conv_of_upsampled"]

_TAPS = 3
# Cells a side of the finest map: matrices of larger ones would take longer than they save.
_LARGEST = 2048


def conv_of_upsampled(conv: nn.Module, maps: Sequence[Tensor]) -> Tensor:
    """Apply a convolution to maps, brought to the first one's size bilinearly and concatenated.

    Args:
        conv: takes the channels of all maps in their order.
        maps: Tensor[B, Ci, hi, wi].

    Returns:
        what `conv` gives, Tensor[B, C, h1, w1]; but for rounding the same either way.
    """
    first, *others = maps
    if not _can_split(conv, maps):
        size = first.shape[-2:]
        return conv(torch.cat([first, *(resize(x, size) for x in others)], dim=1))
    weights = conv.weight.split([x.shape[1] for x in maps], dim=1)
    total = F.conv2d(_channels_last(first), weights[0], conv.bias, padding=1)
    total = total.permute(0, 2, 3, 1)  # as it lies in memory
    shape = total.shape
    total = total.reshape(*shape[:2], -1)
    if total.requires_grad:
        total = total.clone()  # no view, which would be dear to change in place
    for x, weight in zip(others, weights[1:]):
        _add_upsampled(total, x.permute(0, 2, 3, 1), weight, width=shape[2])
    total = total.view(shape).permute(0, 3, 1, 2)
    if conv.norm is not None:
        total = conv.norm(total)
    return total if conv.activation is None else conv.activation(total)


def _can_split(conv: nn.Module, maps: Sequence[Tensor]) -> bool:
    """Whether the way around is the same, and the faster one.

    On GPUs convolutions have units of their own, and in half precision the sums would be rounded
    more often. What is traced is to show the convolution.
    """
    first = maps[0]
    return (
        not (torch.compiler.is_compiling() or torch.jit.is_tracing())
        and first.device.type == "cpu"
        and first.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and max(first.shape[-2:]) <= _LARGEST
        and is_untouched(conv, Conv2d)
        and conv.weight.dtype == first.dtype
        and conv.weight.shape[2:] == (_TAPS, _TAPS)
        and (conv.stride, conv.padding, conv.dilation) == ((1, 1), (1, 1), (1, 1))
        and conv.groups == 1
        and conv.padding_mode == "zeros"
    )


def _add_upsampled(total: Tensor, x: Tensor, weight: Tensor, width: int) -> None:
    """Add conv(up(x)) to the sum, in place.

    Args:
        total: Tensor[B, H, W * C].
        x: Tensor[B, h, w, Ci].
        weight: Tensor[C, Ci, 3, 3].
        width: W.
    """
    batch, height, cells, channels = x.shape
    rows = _upsampling(height, total.shape[1], x)
    columns = _upsampling(cells, width, x)
    # Taps of a row lie beside each other, for each cell: one matrix makes a row of them all.
    columns = columns.permute(1, 2, 0).reshape(1, width, -1).expand(batch * height, -1, -1)
    for row, taps in zip(rows, weight.permute(2, 3, 0, 1)):
        mixed = linear(x, taps.reshape(-1, channels)).view(batch * height, cells * _TAPS, -1)
        wide = torch.bmm(columns, mixed).view(batch, height, -1)
        total.baddbmm_(row.expand(batch, -1, -1), wide)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _upsampling(small: int, large: int, like: Tensor) -> Tensor:
    """What each of `large` cells is of `small` ones, seen by each tap: Tensor[3, large, small]."""
    cells = torch.eye(small, dtype=like.dtype)[None]
    matrix = F.interpolate(cells, size=large, mode="linear", align_corners=False)[0].T
    padded = F.pad(matrix, (0, 0, 1, 1))  # the convolution sees zeros around the map
    return torch.stack([padded[tap : tap + large] for tap in range(_TAPS)])
