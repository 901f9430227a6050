"""From a box's features to the vector that its class and refinement are predicted from."""

from collections.abc import Sequence

import numpy as np
from fvcore.nn import weight_init
from torch import Tensor, nn

from ..layers import Conv2d, Linear, ShapeSpec, get_norm

__all__ = ["FastRCNNConvFCHead"]


class FastRCNNConvFCHead(nn.Sequential):
    """3x3 convolutions, then fully connected layers, each followed by ReLU.

    Takes the shape (channels, height, width) of a box's features and the layers' output widths;
    convolutions with a norm have no bias. ValueError without any layer.
    """

    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        conv_dims: Sequence[int],
        fc_dims: Sequence[int],
        conv_norm="",
    ):
        super().__init__()
        if len(conv_dims) + len(fc_dims) == 0:
            raise ValueError("a box head needs a layer: conv_dims and fc_dims are both empty")
        channels = input_shape.channels
        for k, conv_dim in enumerate(conv_dims, start=1):
            conv = Conv2d(
                channels,
                conv_dim,
                kernel_size=3,
                padding=1,
                bias=not conv_norm,
                norm=get_norm(conv_norm, conv_dim),
                activation=nn.ReLU(),
            )
            weight_init.c2_msra_fill(conv)
            self.add_module(f"conv{k}", conv)
            channels = conv_dim
        self._output_size = (channels, input_shape.height, input_shape.width)
        for k, fc_dim in enumerate(fc_dims, start=1):
            if k == 1:
                self.add_module("flatten", nn.Flatten())
            fc = Linear(int(np.prod(self._output_size)), fc_dim)
            weight_init.c2_xavier_fill(fc)
            self.add_module(f"fc{k}", fc)
            self.add_module(f"fc_relu{k}", nn.ReLU())
            self._output_size = (fc_dim,)

    def forward(self, x: Tensor) -> Tensor:
        """Map Tensor[R, C, H, W] to Tensor[R, fc_dims[-1]], or to a map without fc layers."""
        return super().forward(x)

    @property
    def output_shape(self) -> ShapeSpec:
        """Shape of the output; height and width only without fully connected layers."""
        return ShapeSpec(*self._output_size)
