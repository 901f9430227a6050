"""The published formulation of an Iwin block, written out: what ours is compared with.

Step by step as section 3 of arXiv 2507.18405 describes it: pad the normalised map, regroup rows
and columns so that each interleaved window lies together, partition into windows, attend with an
explicit softmax, and undo it all.
"""

import torch.nn.functional as F
from torch import Tensor

from ..modeling.blocks import IwinBlock
from ..modeling.iwin import IwinTransformer

__all__ = ["PublishedBlock", "use_published_blocks"]


class PublishedBlock(IwinBlock):
    """The same function and parameters as IwinBlock, as a chain of reshapes and copies."""

    def forward(self, x: Tensor) -> Tensor:
        """Map Tensor[B, H, W, C] to the same shape."""
        batch, height, width, dim = x.shape
        m = self.attn.window_size
        y = self.norm1(x)
        if self.dwconv is not None:
            convolved = self.dwconv.depthwise(y.permute(0, 3, 1, 2).contiguous())
        padded = F.pad(y, (0, 0, 0, -width % m, 0, -height % m))
        rows, columns = padded.shape[1] // m, padded.shape[2] // m

        grouped = _regroup(_regroup(padded, 1, m, rows), 2, m, columns)
        windows = grouped.view(batch, rows, m, columns, m, dim).permute(0, 1, 3, 2, 4, 5)
        windows = self._attend(windows.contiguous().view(-1, m * m, dim))
        windows = windows.view(batch, rows, columns, m, m, dim).permute(0, 1, 3, 2, 4, 5)
        grouped = windows.contiguous().view(batch, rows * m, columns * m, dim)

        mixed = _regroup(_regroup(grouped, 2, columns, m), 1, rows, m)
        mixed = mixed[:, :height, :width].contiguous()
        if self.dwconv is not None:
            mixed = mixed + convolved.permute(0, 2, 3, 1)
        x = x + self.drop_path(mixed)
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, windows: Tensor) -> Tensor:
        count, tokens, dim = windows.shape
        heads = self.attn.num_heads
        qkv = self.attn.qkv(windows).reshape(count, tokens, 3, heads, dim // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = ((q * (dim // heads) ** -0.5) @ k.transpose(-2, -1)).softmax(-1)
        return self.attn.proj((weights @ v).transpose(1, 2).reshape(count, tokens, dim))


def _regroup(x: Tensor, axis: int, outer: int, inner: int) -> Tensor:
    """Read `axis` as (outer, inner) and swap the two, by a copy."""
    return x.unflatten(axis, (outer, inner)).transpose(axis, axis + 1).flatten(axis, axis + 1)


def use_published_blocks(model: IwinTransformer) -> IwinTransformer:
    """Turn every block of a backbone into the published formulation; returns the model."""
    for module in model.modules():
        if type(module) is IwinBlock:
            module.__class__ = PublishedBlock
    return model
