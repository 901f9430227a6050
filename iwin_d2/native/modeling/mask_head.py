"""Masks of detections (He et al. 2017)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from fvcore.nn import weight_init
from torch import Tensor, nn

from ..layers import Conv2d, ConvTranspose2d, ShapeSpec, cat, get_norm
from ..structures import Instances
from .metrics import put_scalars

__all__ = ["MaskRCNNConvUpsampleHead", "mask_rcnn_inference", "mask_rcnn_loss"]


def mask_rcnn_loss(pred_mask_logits: Tensor, instances: list[Instances]) -> Tensor:
    """Return the mean cross-entropy of the masks of the true classes.

    Args:
        pred_mask_logits: Tensor[R, K, M, M], or [R, 1, M, M] where one mask serves all classes.
        instances: for each image its foreground proposals, R in all, with `proposal_boxes`,
            `gt_classes` and `gt_masks`.
    """
    size = pred_mask_logits.shape[-1]
    present = [per_image for per_image in instances if len(per_image) > 0]
    if not present:
        return pred_mask_logits.sum() * 0
    device = pred_mask_logits.device
    gt_masks = cat(
        [p.gt_masks.crop_and_resize(p.proposal_boxes.tensor, size).to(device) for p in present]
    )
    if pred_mask_logits.shape[1] == 1:
        logits = pred_mask_logits[:, 0]
    else:
        gt_classes = cat([p.gt_classes for p in present])
        logits = pred_mask_logits[torch.arange(len(gt_masks), device=device), gt_classes]
    _log_mask_stats(logits, gt_masks)
    return F.binary_cross_entropy_with_logits(logits, gt_masks.to(logits.dtype))


@torch.no_grad()
def _log_mask_stats(logits: Tensor, gt_masks: Tensor) -> None:
    """Put the share of pixels that are right, and of either kind that are wrong."""
    wrong = (logits > 0) != gt_masks
    counts = torch.stack([wrong.sum(), gt_masks.sum(), (wrong & gt_masks).sum()])
    num_wrong, num_positive, num_missed = counts.tolist()
    total = gt_masks.numel()
    put_scalars(
        **{
            "mask_rcnn/accuracy": 1 - num_wrong / max(total, 1),
            "mask_rcnn/false_positive": (num_wrong - num_missed) / max(total - num_positive, 1),
            "mask_rcnn/false_negative": num_missed / max(num_positive, 1),
        }
    )


def mask_rcnn_inference(pred_mask_logits: Tensor, pred_instances: list[Instances]) -> None:
    """Set `pred_masks`, Tensor[Ri, 1, M, M] of probabilities, on each image's detections.

    Takes the logits [R, K, M, M] or [R, 1, M, M] of the R detections of all images.
    """
    if pred_mask_logits.shape[1] > 1:
        classes = cat([instances.pred_classes for instances in pred_instances])
        rows = torch.arange(len(classes), device=classes.device)
        pred_mask_logits = pred_mask_logits[rows, classes][:, None]
    probabilities = pred_mask_logits.sigmoid()
    counts = [len(instances) for instances in pred_instances]
    for instances, masks in zip(pred_instances, probabilities.split(counts)):
        instances.pred_masks = masks


class MaskRCNNConvUpsampleHead(nn.Sequential):
    """3x3 convolutions, a transposed convolution that doubles the size, and a 1x1 convolution.

    Args:
        input_shape: of a detection's features.
        num_classes: K; with 1, one mask serves all classes.
        conv_dims: output channels of the convolutions; the last is that of the transposed one.
        conv_norm: norm of the 3x3 convolutions, which then have no bias; "" for none.
        loss_weight: of `loss_mask`.
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
            self.add_module(f"mask_fcn{k}", conv)
            channels = conv_dim
        self.deconv = ConvTranspose2d(channels, conv_dims[-1], kernel_size=2, stride=2)
        weight_init.c2_msra_fill(self.deconv)
        self.add_module("deconv_relu", nn.ReLU())
        self.predictor = Conv2d(conv_dims[-1], num_classes, kernel_size=1)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)
        self.loss_weight = loss_weight

    def layers(self, x: Tensor) -> Tensor:
        """Map features Tensor[R, C, M, M] to logits Tensor[R, K, 2M, 2M]."""
        return super().forward(x)

    def forward(self, x: Tensor, instances: list[Instances]):
        """Return {"loss_mask": ...} in training, else the instances with `pred_masks`.

        Takes the features [R, C, M, M] of all images' instances, which are as `mask_rcnn_loss` and
        `mask_rcnn_inference` want them.
        """
        logits = self.layers(x)
        if self.training:
            return {"loss_mask": mask_rcnn_loss(logits, instances) * self.loss_weight}
        mask_rcnn_inference(logits, instances)
        return instances
