"""The head of Semantic FPN (Kirillov et al. 2019), with this project's losses."""

from collections.abc import Mapping

from torch import Tensor, nn

from ...d2.layers import ShapeSpec
from ...d2.modeling import SemSegFPNHead
from .head import SegmentationHead
from .loss import SegmentationLoss

__all__ = ["SemanticFPNHead"]


class SemanticFPNHead(SemSegFPNHead):
    """Detectron2's `SemSegFPNHead` for a feature pyramid, with `SegmentationLoss` and dropout.

    State dict and logits are Detectron2's.

    Args:
        input_shape: channels and strides of the pyramid's maps by name, all of which are used.
        num_classes: K.
        conv_dims: channels of the convolutions.
        common_stride: that all maps are brought to.
        loss_weight: factor on the loss.
        norm: of the convolutions, as `get_norm` takes it.
        ignore_value: of pixels that have no class.
        dropout: share of channels that training leaves out before the classifier.
        loss: see `SegmentationHead`.
    """

    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        num_classes: int,
        conv_dims: int = 128,
        common_stride: int = 4,
        loss_weight: float = 1.0,
        norm="GN",
        ignore_value: int = 255,
        dropout: float = 0.0,
        loss: SegmentationLoss | None = None,
    ):
        super().__init__(
            input_shape=dict(input_shape),  # by name: Detectron2 takes a first one for a config
            num_classes=num_classes,
            conv_dims=conv_dims,
            common_stride=common_stride,
            loss_weight=loss_weight,
            norm=norm,
            ignore_value=ignore_value,
        )
        self.num_classes, self.stride = num_classes, common_stride
        self.dropout = nn.Dropout2d(dropout)
        self.loss = SegmentationLoss() if loss is None else loss
        self.loss.check_num_classes(num_classes)

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        """Map the pyramid's maps to logits Tensor[B, K, H / stride, W / stride]."""
        scaled = [getattr(self, name)(features[name]) for name in self.in_features]
        return self.predictor(self.dropout(sum(scaled[1:], scaled[0])))

    losses = SegmentationHead.losses
