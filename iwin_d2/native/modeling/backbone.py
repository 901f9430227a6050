"""What every backbone is, and where backbones are found by name."""

from abc import ABCMeta, abstractmethod

from fvcore.common.registry import Registry
from torch import Tensor, nn

from ..layers import ShapeSpec

__all__ = ["BACKBONE_REGISTRY", "Backbone"]

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
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }
