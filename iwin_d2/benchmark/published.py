"""The published formulation, written out: what ours is compared with.

Step by step as section 3 of arXiv 2507.18405 describes it: pad the normalised map, regroup rows
and columns so that each interleaved window lies together, partition into windows, attend with an
explicit softmax, and undo it all. Plain PyTorch throughout, whatever the modules that stand behind
these classes have become; on maps of images, [B, H, W, C], and of clips, [B, T, H, W, C].
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ..modeling.blocks import Downsample, IwinBlock, PatchEmbed

__all__ = [
    "PublishedBlock",
    "PublishedDownsample",
    "PublishedPatchEmbed",
    "published_attention",
    "use_published_blocks",
]

Window = tuple[int, int]  # height, width


def published_attention(
    qkv: Tensor, num_heads: int, window_size: int | Window, pad_qkv: Tensor | None = None
) -> Tensor:
    """Do what the published block does between the norm and the projection, on a projected map.

    Arguments and result as `iwin_d2.ops.interleaved_window_attention`.
    """
    window = (window_size, window_size) if isinstance(window_size, int) else window_size
    windows = _partition(_pad(qkv, window, pad_qkv), window)
    return _merge(_attend(windows, num_heads), window, qkv.shape[:-1])


class PublishedBlock(IwinBlock):
    """The same function and parameters as IwinBlock, as a chain of reshapes and copies."""

    def forward(self, x: Tensor) -> Tensor:
        """Map Tensor[B, H, W, C] or Tensor[B, T, H, W, C] to the same shape."""
        window = self.attn.window_of(x)
        y = self.norm1(x)
        # On the windows, so that padding gets the bias as its q, k and v.
        windows = self.attn.qkv(_partition(_pad(y, window), window))
        windows = self.attn.proj(_attend(windows, self.attn.num_heads))
        mixed = _merge(windows, window, x.shape[:-1])
        if self.dwconv is not None:
            mixed = mixed + self._convolve(y)
        x = x + self.drop_path(mixed)
        return x + self.drop_path(self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x)))))

    def _convolve(self, y: Tensor) -> Tensor:
        conv = self.dwconv.depthwise
        maps = y.reshape(-1, *y.shape[-3:]).permute(0, 3, 1, 2).contiguous()
        maps = F.conv2d(maps, conv.weight, conv.bias, padding=1, groups=conv.groups)
        return maps.permute(0, 2, 3, 1).reshape(y.shape)


class PublishedPatchEmbed(PatchEmbed):
    """The same function and parameters as PatchEmbed."""

    def forward(self, images: Tensor) -> Tensor:
        """Map Tensor[B, in_chans, H, W] to Tensor[B, ceil(H / patch), ceil(W / patch), C]."""
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % self.patch_size, 0, -height % self.patch_size))
        maps = F.conv2d(images, self.proj.weight, self.proj.bias, stride=self.patch_size)
        return self.norm(maps.flatten(2).transpose(1, 2)).unflatten(1, maps.shape[-2:])


class PublishedDownsample(Downsample):
    """The same function and parameters as Downsample."""

    def forward(self, x: Tensor) -> Tensor:
        """Map Tensor[.., H, W, C] to Tensor[.., ceil(H / 2), ceil(W / 2), 2 * C]."""
        *outer, height, width, channels = x.shape
        maps = self.norm(x).reshape(-1, height, width, channels).permute(0, 3, 1, 2)
        maps = F.pad(maps, (0, width % 2, 0, height % 2))
        maps = F.pad(maps, (0, 1, 0, 1))
        maps = F.conv2d(maps, self.conv.weight, self.conv.bias, stride=2)
        return maps.permute(0, 2, 3, 1).unflatten(0, outer)


def use_published_blocks(model: nn.Module) -> nn.Module:
    """Turn every part of a backbone into the published formulation; returns the model."""
    classes = (
        (IwinBlock, PublishedBlock),
        (PatchEmbed, PublishedPatchEmbed),
        (Downsample, PublishedDownsample),
    )
    for module in model.modules():
        for ours, published in classes:
            if isinstance(module, ours):
                module.__class__ = published
    return model


def _pad(x: Tensor, window: Window, value: Tensor | None = None) -> Tensor:
    """Pad the map to multiples of the window; tokens of the padding are `value`, or zeros."""
    height, width = x.shape[-3:-1]
    sides = (0, 0, 0, -width % window[1], 0, -height % window[0])
    padded = F.pad(x, sides)
    if value is None or padded.shape == x.shape:
        return padded
    return padded + F.pad(x.new_zeros(height, width, 1), sides, value=1) * value


def _partition(x: Tensor, window: Window) -> Tensor:
    """Gather a padded map into its windows, Tensor[B * Gh * Gw, T * M_h * M_w, C]."""
    if x.dim() == 4:
        x = x.unsqueeze(1)
    batch, frames, height, width, dim = x.shape
    (m, n), rows, columns = window, height // window[0], width // window[1]
    x = _regroup(_regroup(x, 2, m, rows), 3, n, columns)
    windows = x.view(batch, frames, rows, m, columns, n, dim).permute(0, 2, 4, 1, 3, 5, 6)
    return windows.contiguous().view(-1, frames * m * n, dim)


def _merge(windows: Tensor, window: Window, shape: tuple[int, ...]) -> Tensor:
    """Put the windows back and crop the padding; `shape` is [B, H, W] or [B, T, H, W]."""
    batch, frames = shape[0], shape[1] if len(shape) == 4 else 1
    height, width = shape[-2:]
    (m, n), rows, columns = window, -(-height // window[0]), -(-width // window[1])
    x = windows.view(batch, rows, columns, frames, m, n, -1).permute(0, 3, 1, 4, 2, 5, 6)
    x = x.contiguous().view(batch, frames, rows * m, columns * n, -1)
    x = _regroup(_regroup(x, 3, columns, n), 2, rows, m)
    return x[:, :, :height, :width].contiguous().view(*shape, -1)


def _attend(qkv: Tensor, num_heads: int) -> Tensor:
    """Multi-head attention in each of Tensor[windows, tokens, 3 * C]."""
    count, tokens, channels = qkv.shape
    head_dim = channels // (3 * num_heads)
    q, k, v = qkv.reshape(count, tokens, 3, num_heads, head_dim).permute(2, 0, 3, 1, 4)
    weights = ((q * head_dim**-0.5) @ k.transpose(-2, -1)).softmax(-1)
    return (weights @ v).transpose(1, 2).reshape(count, tokens, -1)


def _regroup(x: Tensor, axis: int, outer: int, inner: int) -> Tensor:
    """Read `axis` as (outer, inner) and swap the two, by a copy."""
    return x.unflatten(axis, (outer, inner)).transpose(axis, axis + 1).flatten(axis, axis + 1)
