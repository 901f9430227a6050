"""Feature pyramid network (Lin et al. 2017)."""

import itertools
import math
from collections.abc import Sequence

import torch.nn.functional as F
from fvcore.nn import weight_init
from torch import Tensor, nn

from ..layers import Conv2d, get_norm
from .backbone import Backbone

__all__ = ["FPN", "LastLevelMaxPool"]


class LastLevelMaxPool(nn.Module):
    """One more pyramid level, p6: every second cell of p5."""

    num_levels = 1
    in_feature = "p5"

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map Tensor[N, C, H, W] to a list of the one level [N, C, ceil(H / 2), ceil(W / 2)]."""
        return [F.max_pool2d(x, kernel_size=1, stride=2)]


class FPN(Backbone):
    """A pyramid p2, p3, ... on top of a backbone; the number is log2 of the level's stride.

    Args:
        bottom_up: the backbone.
        in_features: names of its feature maps, from fine to coarse, each of twice the stride of
            the one before.
        out_channels: channels of every level.
        norm: name or maker of the norm after each convolution; "" for none.
        top_block: makes further levels of the coarsest: a module with `num_levels` and
            `in_feature`, the name of the level or of the backbone's map that it starts from.
        fuse_type: "sum" or "avg", how a lateral map and the one from above are joined.
        square_pad: if more than 0, inputs are padded to squares of this side.

    Raises:
        ValueError: the strides do not double from level to level, or fuse_type is not known.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        norm="",
        top_block: nn.Module | None = None,
        fuse_type: str = "sum",
        square_pad: int = 0,
    ):
        super().__init__()
        if fuse_type not in ("sum", "avg"):
            raise ValueError(f"fuse_type is 'sum' or 'avg', got {fuse_type!r}")
        if not in_features:
            raise ValueError("FPN needs at least one of the backbone's feature maps")
        shapes = bottom_up.output_shape()
        strides = [shapes[name].stride for name in in_features]
        if any(coarse != 2 * fine for fine, coarse in itertools.pairwise(strides)):
            raise ValueError(f"the strides of {list(in_features)} must double, got {strides}")
        levels = [int(math.log2(stride)) for stride in strides]
        for name, level in zip(in_features, levels):
            channels = shapes[name].channels
            self.add_module(f"fpn_lateral{level}", self._conv(channels, out_channels, 1, norm))
            self.add_module(f"fpn_output{level}", self._conv(out_channels, out_channels, 3, norm))
        self.bottom_up = bottom_up
        self.in_features = tuple(in_features)
        self.top_block = top_block
        self._levels = levels
        extra = top_block.num_levels if top_block is not None else 0
        all_levels = [*levels, *range(levels[-1] + 1, levels[-1] + 1 + extra)]
        self._out_features = [f"p{level}" for level in all_levels]
        self._out_feature_strides = {f"p{level}": 2**level for level in all_levels}
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)
        self._size_divisibility = strides[-1]
        self._square_pad = square_pad
        self._fuse_type = fuse_type

    @staticmethod
    def _conv(in_channels: int, out_channels: int, kernel_size: int, norm) -> Conv2d:
        conv = Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            padding=kernel_size // 2,
            bias=norm == "",
            norm=get_norm(norm, out_channels),
        )
        weight_init.c2_xavier_fill(conv)
        return conv

    @property
    def size_divisibility(self) -> int:
        """The coarsest of the backbone's strides in use."""
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """The square to pad to, 0 for none."""
        return {"square_size": self._square_pad}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images Tensor[N, 3, H, W] to the levels by name, from fine to coarse.

        H and W are multiples of `size_divisibility`.
        """
        bottom_up = self.bottom_up(x)
        outputs: list[Tensor] = []
        above = None
        for name, level in zip(reversed(self.in_features), reversed(self._levels)):
            lateral = getattr(self, f"fpn_lateral{level}")(bottom_up[name])
            if above is not None:
                lateral = lateral + F.interpolate(above, scale_factor=2.0, mode="nearest")
                if self._fuse_type == "avg":
                    lateral = lateral / 2
            above = lateral
            outputs.insert(0, getattr(self, f"fpn_output{level}")(lateral))
        levels = dict(zip(self._out_features, outputs))
        if self.top_block is not None:
            source = self.top_block.in_feature
            top = self.top_block(bottom_up[source] if source in bottom_up else levels[source])
            levels.update(zip(self._out_features[len(outputs) :], top))
        return levels
