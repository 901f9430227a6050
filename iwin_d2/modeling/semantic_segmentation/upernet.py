"""UPerNet (Xiao et al. 2018): pyramid pooling on the coarsest map, a feature pyramid, all in one.

Source: the published Iwin segmenters' configs.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...d2.layers import Conv2d, ShapeSpec
from .fcn import FCNHead
from .head import SegmentationHead, check_statistics, conv_norm_relu, resize
from .loss import SegmentationLoss
from .upsampled import conv_of_upsampled

__all__ = ["UPerNetHead"]


class UPerNetHead(SegmentationHead):
    """Pyramid pooling (Zhao et al. 2017), lateral and top-down paths, one map of all levels.

    Works with any backbone of several levels, from fine to coarse; their sizes need not be
    multiples of each other.

    Args:
        input_shape: channels and strides of the backbone's maps by name.
        in_features: names of the maps to use; None for all of `input_shape`.
        num_classes: K.
        channels: of every convolution.
        pool_scales: sides of the maps that the coarsest one is pooled to.
        dropout: share of channels that training leaves out before the classifier.
        norm: of the convolutions, as `get_norm` takes it. "SyncBN" is plain BatchNorm in a single
            process.
        ignore_value, loss_weight, loss: see `SegmentationHead`.
        auxiliary: a head whose loss training adds, as "loss_sem_seg_aux"; or None.
    """

    def __init__(
        self,
        *,
        input_shape: Mapping[str, ShapeSpec],
        in_features: Sequence[str] | None = None,
        num_classes: int,
        channels: int = 512,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
        norm="SyncBN",
        ignore_value: int = 255,
        loss_weight: float = 1.0,
        loss: SegmentationLoss | None = None,
        auxiliary: FCNHead | None = None,
    ):
        names = list(input_shape if in_features is None else in_features)
        unknown = [name for name in names if name not in input_shape]
        if unknown or len(names) < 2:
            raise ValueError(
                f"in_features must be at least two of {sorted(input_shape)}, got {names}"
            )
        ordered = sorted(names, key=lambda name: input_shape[name].stride)
        super().__init__(
            num_classes=num_classes,
            stride=input_shape[ordered[0]].stride,
            ignore_value=ignore_value,
            loss_weight=loss_weight,
            loss=loss,
        )
        self.in_features = ordered
        *fine, coarse = [input_shape[name].channels for name in self.in_features]
        self.pyramid_pooling = PyramidPooling(coarse, channels, pool_scales, norm)
        self.lateral_convs = nn.ModuleList(conv_norm_relu(c, channels, 1, norm) for c in fine)
        self.fpn_convs = nn.ModuleList(conv_norm_relu(channels, channels, 3, norm) for _ in fine)
        levels = len(self.in_features)
        self.fpn_bottleneck = conv_norm_relu(levels * channels, channels, 3, norm)
        self.dropout = nn.Dropout2d(dropout)
        self.predictor = Conv2d(channels, num_classes, kernel_size=1)
        nn.init.normal_(self.predictor.weight, std=0.01)
        nn.init.zeros_(self.predictor.bias)
        if auxiliary is not None:
            _check_alike(self, auxiliary)
        self.auxiliary = auxiliary

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        """Map the backbone's maps to logits Tensor[B, K, h, w] at the finest one's size."""
        *fine, coarse = [features[name] for name in self.in_features]
        above = self.pyramid_pooling(coarse)
        levels = [above]
        for i in reversed(range(len(fine))):
            above = self.lateral_convs[i](fine[i]) + resize(above, fine[i].shape[-2:])
            levels.insert(0, self.fpn_convs[i](above))
        return self.predictor(self.dropout(conv_of_upsampled(self.fpn_bottleneck, levels)))

    def forward(self, features: dict[str, Tensor], targets: Tensor | None = None):
        """Compute losses, or logits at the size of the images: see `SegmentationHead.forward`.

        While training with an auxiliary head, its loss is there as "loss_sem_seg_aux".
        """
        logits, losses = super().forward(features, targets)
        if self.training and self.auxiliary is not None:
            others = self.auxiliary.losses(self.auxiliary.layers(features), targets)
            losses = {**losses, **{f"{name}_aux": value for name, value in others.items()}}
        return logits, losses


def _check_alike(head: SegmentationHead, auxiliary: SegmentationHead) -> None:
    """Raise ValueError unless two heads are for the same labels."""
    for name in ("num_classes", "ignore_value"):
        ours, theirs = getattr(head, name), getattr(auxiliary, name)
        if ours != theirs:
            raise ValueError(f"{name} is {ours}, but that of the auxiliary head {theirs}")


class PyramidPooling(nn.Module):
    """A map and what it is on average in grids of several scales, in one map again."""

    def __init__(self, in_channels: int, channels: int, scales: Sequence[int], norm):
        super().__init__()
        self.scales = list(scales)
        self.convs = nn.ModuleList(conv_norm_relu(in_channels, channels, 1, norm) for _ in scales)
        joined = in_channels + len(self.scales) * channels
        self.bottleneck = conv_norm_relu(joined, channels, 3, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map Tensor[B, C, h, w] to Tensor[B, channels, h, w]."""
        maps = [x]
        for scale, conv in zip(self.scales, self.convs):
            pooled = _average(x, scale)
            check_statistics(conv, pooled)
            maps.append(resize(conv(pooled), x.shape[-2:]))
        check_statistics(self.bottleneck, x)
        return self.bottleneck(torch.cat(maps, dim=1))


def _average(x: Tensor, scale: int) -> Tensor:
    """The means of Tensor[B, C, h, w] in a grid: Tensor[B, C, scale, scale]."""
    if not torch.compiler.is_exporting():
        return F.adaptive_avg_pool2d(x, scale)
    # ONNX has no such pooling for sizes that are not known: the same as a matrix.
    rows, columns = (_shares(side, scale, x) for side in x.shape[-2:])
    grid = rows[:, None, :, None] * columns[None, :, None, :]
    return F.linear(x.flatten(2), grid.flatten(2).flatten(0, 1)).unflatten(2, (scale, scale))


def _shares(side: int, scale: int, like: Tensor) -> Tensor:
    """What each cell of `side` weighs in each of `scale` means: Tensor[scale, side]."""
    cell = torch.arange(side, device=like.device)
    number = torch.arange(scale, device=like.device)[:, None]
    first, end = number * side // scale, ((number + 1) * side + scale - 1) // scale
    inside = ((cell >= first) & (cell < end)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)
