"""Masks of detections (He et al. 2017)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from fvcore.nn import weight_init
from torch import Tensor, nn

from ..layers import Conv2d, ConvTranspose2d, ShapeSpec, cat
from ..structures import Instances
from ..utils.events import put_scalar
from .backbone import make_conv


def _of_classes(logits: Tensor, classes: list[Tensor]) -> Tensor:
    """The masks [R, M, M] of the classes, of all images, out of [R, K, M, M] or [R, 1, M, M]."""
    if logits.shape[1] == 1:  # one mask serves all classes
        return logits[:, 0]
    return logits[torch.arange(len(logits), device=logits.device), cat(classes)]


def mask_rcnn_loss(pred_mask_logits: Tensor, instances: list[Instances]) -> Tensor:
    """Return the mean cross-entropy of the masks [R, K, M, M] or [R, 1, M, M] of the true classes.

    Takes each image's foreground proposals: `proposal_boxes`, `gt_classes` and `gt_masks`.
    """
    size, device = pred_mask_logits.shape[-1], pred_mask_logits.device
    present = [per_image for per_image in instances if len(per_image) > 0]
    if not present:
        return pred_mask_logits.sum() * 0
    gt_masks = cat(
        [p.gt_masks.crop_and_resize(p.proposal_boxes.tensor, size).to(device) for p in present]
    )
    logits = _of_classes(pred_mask_logits, [p.gt_classes for p in present])
    _log_mask_stats(logits, gt_masks)
    return F.binary_cross_entropy_with_logits(logits, gt_masks.to(logits.dtype))


@torch.no_grad()
def _log_mask_stats(logits: Tensor, gt_masks: Tensor) -> None:
    """Record the share of pixels that are right, and of either kind that are wrong."""
    wrong = (logits > 0) != gt_masks
    counts = torch.stack([wrong.sum(), gt_masks.sum(), (wrong & gt_masks).sum()])
    num_wrong, num_positive, num_missed = counts.tolist()
    total = gt_masks.numel()
    false_positive = (num_wrong - num_missed) / max(total - num_positive, 1)
    put_scalar("mask_rcnn/accuracy", 1 - num_wrong / max(total, 1))
    put_scalar("mask_rcnn/false_positive", false_positive)
    put_scalar("mask_rcnn/false_negative", num_missed / max(num_positive, 1))


def mask_rcnn_inference(pred_mask_logits: Tensor, pred_instances: list[Instances]) -> None:
    """Set `pred_masks`, Tensor[Ri, 1, M, M] of probabilities, on each image's detections.

    Takes the logits [R, K, M, M] or [R, 1, M, M] of the R detections of all images.
    """
    logits = _of_classes(pred_mask_logits, [x.pred_classes for x in pred_instances])
    probabilities = logits.sigmoid()[:, None]
    counts = [len(instances) for instances in pred_instances]
    for instances, masks in zip(pred_instances, probabilities.split(counts)):
        instances.pred_masks = masks


class MaskRCNNConvUpsampleHead(nn.Sequential):
    """3x3 convolutions, a transposed convolution that doubles the size, and a 1x1 convolution.

    `conv_dims` are the output channels, the last those of the transposed one. With one class, one
    mask serves all.
    """

    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: Sequence[int],
        conv_norm="",
        loss_weight: float = 1.0,
    ):
        super().__init__()
        if len(conv_dims) == 0:
            raise ValueError("conv_dims must name at least the transposed convolution's channels")
        channels = input_shape.channels
        for k, conv_dim in enumerate(conv_dims[:-1], start=1):
            conv = make_conv(channels, conv_dim, 3, conv_norm, activation=nn.ReLU())
            self.add_module(f"mask_fcn{k}", conv)
            channels = conv_dim
        self.deconv = ConvTranspose2d(channels, conv_dims[-1], kernel_size=2, stride=2)
        self.add_module("deconv_relu", nn.ReLU())
        self.predictor = Conv2d(conv_dims[-1], num_classes, kernel_size=1)
        for layer in self:  # when all are made: one seed, one model everywhere
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) and layer is not self.predictor:
                weight_init.c2_msra_fill(layer)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)
        self.loss_weight = loss_weight

    def layers(self, x: Tensor) -> Tensor:
        """Map features Tensor[R, C, M, M] to logits Tensor[R, K, 2M, 2M]."""
        return super().forward(x)

    def forward(self, x: Tensor, instances: list[Instances]):
        """Return {"loss_mask": ...} in training, else the instances with `pred_masks`."""
        logits = self.layers(x)
        if self.training:
            return {"loss_mask": mask_rcnn_loss(logits, instances) * self.loss_weight}
        mask_rcnn_inference(logits, instances)
        return instances
