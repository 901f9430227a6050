"""The parts of an Iwin stage, on channels-last maps.

Blocks and the downsampling between stages take maps of images, Tensor[B, H, W, C], and of clips,
Tensor[B, T, H, W, C]: there a window holds its tokens of all frames, and the convolutions work
frame by frame. Parameter names are the published checkpoints' own.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from ..ops import interleaved_window_attention
from ..ops.bias_gelu import linear_gelu
from ..ops.checks import check_window
from ..ops.depthwise_conv import depthwise_conv_add
from ..ops.linear import linear
from ..ops.mlp import mlp
from .fused import can_fuse, can_fuse_downsample, run_fused, run_fused_downsample
from .untouched import is_depthwise_3x3, is_untouched

__all__ = ["Downsample", "IwinBlock", "PatchEmbed"]


def _linear(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a linear layer, by the fastest library that can."""
    if is_untouched(layer, nn.Linear):
        return linear(x, layer.weight, layer.bias)
    return layer(x)


class InterleavedWindowAttention(nn.Module):
    """Projection to q, k and v, attention inside interleaved windows, projection (section 3.1)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int | Sequence[int],
        shrink_window: bool = False,
    ):
        super().__init__()
        if dim % num_heads != 0:
            raise ValueError(f"{dim} channels cannot be split into {num_heads} heads")
        self.num_heads = num_heads
        self.window_size = (
            window_size if isinstance(window_size, int) else check_window(window_size)
        )
        self.shrink_window = shrink_window
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map Tensor[B, H, W, C] or Tensor[B, T, H, W, C] to the same shape."""
        out = interleaved_window_attention(
            _linear(self.qkv, x), self.num_heads, self.window_of(x), self._project_zeros(x)
        )
        return _linear(self.proj, out)

    def window_of(self, x: Tensor) -> tuple[int, int]:
        """Sides of the windows of Tensor[..., H, W, C]: the map's own where that is to shrink."""
        window = check_window(self.window_size)
        if not self.shrink_window:
            return window
        # A side that is a symbol while tracing is pinned down where the window is made of it.
        sides = zip(window, x.shape[-3:-1])
        return tuple(most if side >= most else int(side) for most, side in sides)

    def _project_zeros(self, x: Tensor) -> Tensor | None:
        """Return q, k and v of padded tokens: as published, the map is padded, then projected."""
        if isinstance(self.qkv, nn.Linear):
            return self.qkv.bias
        return self.qkv(x.new_zeros(1, x.shape[-1])).squeeze(0)

    def extra_repr(self) -> str:
        """Head count and window, which leave no trace in the parameters' shapes."""
        return f"num_heads={self.num_heads}, window_size={self.window_size}"


def _by_frame(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function of Tensor[N, H, W, C] to the frames of Tensor[B, T, H, W, C], too."""
    if x.dim() != 5:
        return function(x)
    return function(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class DepthwiseConv(nn.Module):
    """3x3 depthwise convolution with bias and zero padding, on each frame."""

    def __init__(self, dim: int):
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map Tensor[B, H, W, C] or Tensor[B, T, H, W, C] to the same shape."""
        return _by_frame(self._convolve, x)

    def _convolve(self, x: Tensor) -> Tensor:
        return self.depthwise(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _plus_convolution(other: Tensor, dwconv: nn.Module, x: Tensor) -> Tensor:
    """Return `other` + dwconv(x) for maps of one shape, in one go where that is the same."""
    if not (is_untouched(dwconv, DepthwiseConv) and is_depthwise_3x3(dwconv.depthwise)):
        return other + dwconv(x)
    weight, bias = dwconv.depthwise.weight, dwconv.depthwise.bias
    if x.dim() == 5:
        other = other.flatten(0, 1)
    return _by_frame(lambda maps: depthwise_conv_add(maps, weight, bias, other), x)


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map Tensor[..., C] to the same shape."""
        fc1, fc2 = self.fc1, self.fc2
        if not is_untouched(fc1, nn.Linear) or fc1.bias is None:
            return _linear(fc2, F.gelu(fc1(x)))
        if is_untouched(fc2, nn.Linear) and fc2.bias is not None:
            return mlp(x, fc1.weight, fc1.bias, fc2.weight, fc2.bias)
        return fc2(linear_gelu(x, fc1.weight, fc1.bias))


class IwinBlock(nn.Module):
    """y = norm1(x); x += attention(y) + depthwise(y); x += mlp(norm2(x)) (section 3.2)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int | Sequence[int],
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        depthwise: bool = True,
        shrink_window: bool = False,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = InterleavedWindowAttention(dim, num_heads, window_size, shrink_window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.dwconv = DepthwiseConv(dim) if depthwise else None
        self.drop_path = StochasticDepth(drop_path, "row") if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map Tensor[B, H, W, C] or Tensor[B, T, H, W, C] to the same shape."""
        if can_fuse(self, x, (InterleavedWindowAttention, Mlp, DepthwiseConv)):
            return run_fused(self, x)
        y = self.norm1(x)
        mixed = self.attn(y)
        if self.dwconv is not None:
            mixed = _plus_convolution(mixed, self.dwconv, y)
        x = x + self.drop_path(mixed)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Patches of the zero-padded image, projected and normalised."""

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Map Tensor[B, in_chans, H, W] to Tensor[B, ceil(H / patch), ceil(W / patch), C]."""
        height, width = images.shape[-2:]
        # Padding by one less than a patch gives the same patches as padding to the next multiple;
        # while tracing it keeps symbolic sizes simple, and a branch would pin them down.
        if torch.compiler.is_compiling() or height % self.patch_size or width % self.patch_size:
            images = F.pad(images, (0, self.patch_size - 1, 0, self.patch_size - 1))
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class Downsample(nn.Module):
    """LayerNorm and a 3x3 convolution of stride 2 between stages; C becomes 2 C."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.conv = nn.Conv2d(dim, 2 * dim, kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map Tensor[B, H, W, C] to Tensor[B, ceil(H / 2), ceil(W / 2), 2 * C].

        Tensor[B, T, H, W, C] keeps its frames: Tensor[B, T, ceil(H / 2), ceil(W / 2), 2 * C].
        """
        return _by_frame(self._downsample, x)

    def _downsample(self, x: Tensor) -> Tensor:
        if can_fuse_downsample(self, x):
            return run_fused_downsample(self, x)
        # Published: zeros to an even size, then one more row and column. Two more of each give the
        # same windows: on an even side the convolution never reaches the last one.
        x = F.pad(self.norm(x).permute(0, 3, 1, 2), (0, 2, 0, 2))
        return self.conv(x).permute(0, 2, 3, 1)
