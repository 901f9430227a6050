"""What every backbone is, and the feature pyramid on top of one (Lin et al. 2017)."""

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from fvcore.common.registry import Registry
from fvcore.nn import weight_init
from torch import Tensor, nn
from torchvision.ops import feature_pyramid_network

from ..layers import Conv2d, ShapeSpec, get_norm

BACKBONE_REGISTRY = Registry("BACKBONE")


class Backbone(nn.Module, metaclass=ABCMeta):
    """A network that makes feature maps of images.

    Subclasses either set `_out_features` (names), `_out_feature_channels` and
    `_out_feature_strides` (dicts by name), or override `output_shape`.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images Tensor[N, C, H, W] to feature maps by name."""

    @property
    def size_divisibility(self) -> int:
        """What the sides of the input must be multiples of; 0 for no such demand."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Further demands on the input's size: see `ImageList.from_tensors`."""
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of each feature map by name."""
        channels, strides = self._out_feature_channels, self._out_feature_strides
        return {n: ShapeSpec(channels=channels[n], stride=strides[n]) for n in self._out_features}


def make_conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    norm: str | Callable | None,
    activation: nn.Module | None = None,
) -> Conv2d:
    """A convolution that keeps the size; a norm replaces the bias."""
    return Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        padding=kernel_size // 2,
        bias=not norm,
        norm=get_norm(norm, out_channels),
        activation=activation,
    )


class LastLevelMaxPool(nn.Module):
    """One more pyramid level, p6: every second cell of p5."""

    num_levels = 1
    in_feature = "p5"

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map Tensor[N, C, H, W] to a list of the one level [N, C, ceil(H / 2), ceil(W / 2)]."""
        return [F.max_pool2d(x, kernel_size=1, stride=2)]


class LastLevelP6P7(feature_pyramid_network.LastLevelP6P7):
    """Two more pyramid levels by convolutions, as RetinaNet has them, on top of `in_feature`."""

    num_levels = 2

    def __init__(self, in_channels: int, out_channels: int, in_feature: str = "res5"):
        super().__init__(in_channels, out_channels)
        self.in_feature = in_feature

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map Tensor[N, C, H, W] to p6 and p7, each of half the sides of the one before."""
        p6 = self.p6(x)
        return [p6, self.p7(F.relu(p6))]


class FPN(Backbone):
    """A pyramid p2, p3, ... on top of a backbone; the number is log2 of the level's stride.

    The strides of `in_features` double. `top_block` makes further levels: a module with its
    `num_levels` and `in_feature`, the level or the backbone's map that it starts from. `fuse_type`,
    "sum" or "avg", is how a lateral map and the one from above are joined; with a `square_pad`
    inputs are padded to squares of that side.
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
        shapes = bottom_up.output_shape()
        strides = [shapes[name].stride for name in in_features]
        levels = [stride.bit_length() - 1 for stride in strides]
        if strides != [2 ** (levels[0] + i) for i in range(len(strides))]:
            raise ValueError(f"strides must double from level to level, got {strides}")
        for name, level in zip(in_features, levels):
            lateral = make_conv(shapes[name].channels, out_channels, 1, norm)
            output = make_conv(out_channels, out_channels, 3, norm)
            for conv in (lateral, output):  # both are made first: one seed, one model everywhere
                weight_init.c2_xavier_fill(conv)
            self.add_module(f"fpn_lateral{level}", lateral)
            self.add_module(f"fpn_output{level}", output)
        self.bottom_up = bottom_up
        self.in_features = tuple(in_features)
        self.top_block = top_block
        self._levels = levels
        extra = top_block.num_levels if top_block is not None else 0
        all_levels = range(levels[0], levels[-1] + 1 + extra)
        self._out_features = [f"p{level}" for level in all_levels]
        self._out_feature_strides = {f"p{level}": 2**level for level in all_levels}
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)
        self._square_pad = square_pad
        self._fuse_type = fuse_type

    @property
    def size_divisibility(self) -> int:
        """The coarsest of the backbone's strides in use."""
        return 2 ** self._levels[-1]

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
        if self.top_block is not None:
            levels = {**dict(zip(self._out_features, outputs)), **bottom_up}
            outputs += self.top_block(levels[self.top_block.in_feature])
        return dict(zip(self._out_features, outputs))
