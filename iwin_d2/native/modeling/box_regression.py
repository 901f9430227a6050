"""Boxes as changes of other boxes, and the loss between them."""

import math

import torch
from fvcore.nn import giou_loss, smooth_l1_loss
from torch import Tensor

__all__ = ["Box2BoxTransform", "box_regression_loss"]

# The largest log-ratio by which a side may grow: no box becomes so large that exp overflows.
_DEFAULT_SCALE_CLAMP = math.log(1000.0 / 16)


def _center_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return centres and sides (x, y) of Tensor[..., 4], each Tensor[..., 2]."""
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * size, size


class Box2BoxTransform:
    """The change (dx, dy, dw, dh) from one box to another, as in R-CNN.

    dx, dy move the centre by that fraction of the sides; dw, dh are the logarithms of the ratios
    of the sides. Each is multiplied by its weight. `scale_clamp` limits dw and dh from above.
    """

    def __init__(
        self,
        weights: tuple[float, float, float, float],
        scale_clamp: float = _DEFAULT_SCALE_CLAMP,
    ):
        self.weights = weights
        self.scale_clamp = scale_clamp

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Return the deltas that turn `src_boxes` into `target_boxes`: all Tensor[N, 4]."""
        center, size = _center_size(src_boxes)
        target_center, target_size = _center_size(target_boxes)
        if not (size > 0).all():
            raise AssertionError("boxes to regress from must have an extent")
        weights = src_boxes.new_tensor(self.weights)
        shift = (target_center - center) / size
        growth = torch.log(target_size / size)
        return torch.cat((shift, growth), dim=-1) * weights

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Change boxes [N, 4] by deltas [N, K * 4], K for each; return [N, K * 4] of float32."""
        # Half precision would lose pixels.
        deltas = deltas.float().unflatten(1, (deltas.shape[1] // 4, 4))
        center, size = _center_size(boxes.to(deltas.dtype)[:, None])
        deltas = deltas / deltas.new_tensor(self.weights)
        center = center + deltas[..., :2] * size
        half_size = 0.5 * size * deltas[..., 2:].clamp(max=self.scale_clamp).exp()
        return torch.cat((center - half_size, center + half_size), dim=-1).flatten(1)


def box_regression_loss(
    transform: Box2BoxTransform,
    pred_deltas: Tensor,
    src_boxes: Tensor,
    gt_boxes: Tensor,
    loss_type: str,
    smooth_l1_beta: float,
) -> Tensor:
    """Return the summed loss of predicted deltas.

    Args:
        transform: how deltas are encoded.
        pred_deltas: Tensor[N, 4].
        src_boxes: Tensor[N, 4], the boxes that the deltas change.
        gt_boxes: Tensor[N, 4], what should come out.
        loss_type: "smooth_l1" on the deltas, or "giou" on the boxes that they give.
        smooth_l1_beta: where smooth L1 turns from quadratic to linear; 0 for plain L1.
    """
    if loss_type == "smooth_l1":
        gt_deltas = transform.get_deltas(src_boxes, gt_boxes)
        return smooth_l1_loss(pred_deltas, gt_deltas, beta=smooth_l1_beta, reduction="sum")
    if loss_type == "giou":
        pred_boxes = transform.apply_deltas(pred_deltas, src_boxes)
        return giou_loss(pred_boxes, gt_boxes, reduction="sum")
    raise ValueError(f"box_reg_loss_type is 'smooth_l1' or 'giou', got {loss_type!r}")
