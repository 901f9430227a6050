"""A fully convolutional head on one map (Long et al. 2015), as auxiliary heads are."""

from collections.abc import Mapping

from torch import Tensor, nn

from ...d2.layers import Conv2d, ShapeSpec
from .head import SegmentationHead, check_statistics, conv_norm_relu
from .loss import SegmentationLoss

__all__ = ["FCNHead"]


class FCNHead(SegmentationHead):
    """3x3 convolutions on one feature map, dropout, a classifier.

    Source: the auxiliary head of the published UPerNet configs.

    Args:
        in_feature: name of the map.
        in_channels: of that map; None takes them from `input_shape`.
        input_shape: channels and strides of maps by name; without, the stride is that of the name
            in an IwinTransformer or a ResNet (res2: 4, ..., res5: 32).
        num_classes: K.
        channels: of the convolutions.
        num_convs: how many.
        dropout: share of channels that training leaves out before the classifier.
        norm: of the convolutions, as `get_norm` takes it. "SyncBN" is plain BatchNorm in a single
            process.
        ignore_value, loss_weight, loss: see `SegmentationHead`.
    """

    def __init__(
        self,
        *,
        in_feature: str = "res4",
        in_channels: int | None = None,
        input_shape: Mapping[str, ShapeSpec] | None = None,
        num_classes: int,
        channels: int = 256,
        num_convs: int = 1,
        dropout: float = 0.1,
        norm="SyncBN",
        ignore_value: int = 255,
        loss_weight: float = 1.0,
        loss: SegmentationLoss | None = None,
    ):
        shape = _shape(in_feature, in_channels, input_shape)
        super().__init__(
            num_classes=num_classes,
            stride=shape.stride,
            ignore_value=ignore_value,
            loss_weight=loss_weight,
            loss=loss,
        )
        if num_convs < 1:
            raise ValueError(f"num_convs must be at least 1, got {num_convs}")
        self.in_feature = in_feature
        widths = [shape.channels, *[channels] * (num_convs - 1)]
        self.convs = nn.ModuleList(conv_norm_relu(width, channels, 3, norm) for width in widths)
        self.dropout = nn.Dropout2d(dropout)
        self.predictor = Conv2d(channels, num_classes, kernel_size=1)
        nn.init.normal_(self.predictor.weight, std=0.01)
        nn.init.zeros_(self.predictor.bias)

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        """Map features[in_feature], Tensor[B, C, h, w], to logits Tensor[B, K, h, w]."""
        x = features[self.in_feature]
        check_statistics(self.convs[0], x)
        for conv in self.convs:
            x = conv(x)
        return self.predictor(self.dropout(x))


def _shape(name: str, channels: int | None, shapes: Mapping[str, ShapeSpec] | None) -> ShapeSpec:
    """Channels and stride of the map.

    Raises:
        ValueError: nothing tells.
    """
    if shapes is not None:
        if name not in shapes:
            raise ValueError(f"in_feature={name!r} is none of input_shape, {sorted(shapes)}")
        known = shapes[name]
        return ShapeSpec(channels=channels or known.channels, stride=known.stride)
    if channels is None or name not in ("res2", "res3", "res4", "res5"):
        raise ValueError(f"channels and stride of in_feature={name!r} are wanted: give input_shape")
    return ShapeSpec(channels=channels, stride=2 ** int(name[-1]))
