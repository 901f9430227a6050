"""What the heads of segmenters have in common."""

import torch.nn.functional as F
from fvcore.nn import weight_init
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...d2.layers import Conv2d, get_norm
from ...d2.utils import comm
from ...errors import ConfigError
from ..sync_batch_norm import SyncBatchNorm
from .loss import SegmentationLoss

__all__ = ["SegmentationHead", "check_statistics", "conv_norm_relu", "resize", "upsample"]

Size = tuple[int, int]


def resize(x: Tensor, size: Size) -> Tensor:
    """Bring maps Tensor[B, C, H, W] to a size, bilinearly, corners not aligned."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def upsample(logits: Tensor, stride: int, size: Size | None = None) -> Tensor:
    """Bring logits Tensor[B, K, h, w] of a stride to the size of the images.

    Maps of sides that the stride does not divide reach beyond the images, which lie at their top
    left; what is outside of `size` is cut off.

    Args:
        logits: of the stride.
        stride: in pixels.
        size: (height, width) of the images; None leaves nothing out.

    Returns:
        Tensor[B, K, *size], or Tensor[B, K, h * stride, w * stride].
    """
    if size is None:
        return F.interpolate(logits, scale_factor=stride, mode="bilinear", align_corners=False)
    height, width = size
    if logits.shape[-2] * stride < height or logits.shape[-1] * stride < width:
        return resize(logits, size)  # of a backbone that leaves out what the stride does not divide
    return upsample(logits, stride)[..., :height, :width]


def conv_norm_relu(in_channels: int, out_channels: int, kernel_size: int, norm) -> Conv2d:
    """A convolution that keeps the size, a norm (which replaces the bias) and ReLU."""
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        padding=kernel_size // 2,
        bias=not norm,
        norm=get_norm(norm, out_channels),
        activation=nn.ReLU(inplace=True),
    )
    weight_init.c2_msra_fill(conv)
    return conv


def check_statistics(conv: nn.Module, x: Tensor) -> None:
    """Raise ConfigError if a BatchNorm is to learn from one value of each channel.

    Args:
        conv: made by `conv_norm_relu`.
        x: what it is to take, Tensor[B, C, H, W].
    """
    norm = getattr(conv, "norm", None)
    if not (isinstance(norm, _BatchNorm) and norm.training):
        return
    if x.shape[0] * x.shape[2] * x.shape[3] > 1:
        return
    if isinstance(norm, (nn.SyncBatchNorm, SyncBatchNorm)) and comm.get_world_size() > 1:
        return
    raise ConfigError(
        "BatchNorm cannot learn from a single value: a batch of one image gives it a map of 1 x 1 "
        "pixel (as pyramid pooling makes for its scale 1); train on at least two images in each "
        'batch, or set norm="GN" in model.sem_seg_head and its auxiliary head.'
    )


class SegmentationHead(nn.Module):
    """A head that makes logits of feature maps; subclasses define `layers`.

    Args:
        num_classes: K.
        stride: of the logits, in pixels of the images.
        ignore_value: of pixels that have no class.
        loss_weight: factor on the loss.
        loss: of the logits at the size of the images; None for `SegmentationLoss()`.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        stride: int,
        ignore_value: int = 255,
        loss_weight: float = 1.0,
        loss: SegmentationLoss | None = None,
    ):
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes, self.ignore_value = num_classes, ignore_value
        self.stride, self.loss_weight = stride, loss_weight
        self.loss = SegmentationLoss() if loss is None else loss
        self.loss.check_num_classes(num_classes)

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        """Map feature maps, Tensor[B, C, H / s, W / s] by name, to logits Tensor[B, K, h, w]."""
        raise NotImplementedError

    def forward(self, features: dict[str, Tensor], targets: Tensor | None = None):
        """Compute losses, or logits at the size of the images.

        Args:
            features: maps by name, Tensor[B, C, H / s, W / s].
            targets: while training, classes Tensor[B, H, W] of int64.

        Returns:
            While training: (None, {"loss_sem_seg": scalar}). Otherwise: (logits
            Tensor[B, K, h * stride, w * stride], {}), whose top left H x W are the images'.
        """
        if not self.training:
            return upsample(self.layers(features), self.stride), {}
        return None, self.losses(self.layers(features), targets)

    def losses(self, logits: Tensor, targets: Tensor | None) -> dict[str, Tensor]:
        """Compare logits Tensor[B, K, h, w] with classes Tensor[B, H, W].

        Raises:
            ConfigError: there are no classes.
        """
        if targets is None:
            raise ConfigError(
                'The training data has images without "sem_seg", their labels: use a mapper that '
                "reads them, such as iwin_d2.data.semantic_segmentation.SemSegMapper."
            )
        # In float32 before it is upsampled, also in mixed precision.
        scores = upsample(logits.float(), self.stride, tuple(targets.shape[-2:]))
        return {"loss_sem_seg": self.loss(scores, targets, self.ignore_value) * self.loss_weight}
