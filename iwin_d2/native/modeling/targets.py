"""What boxes are trained towards: their match, the sample that counts, the change, the loss."""

import math
from collections.abc import Sequence

import torch
from fvcore.nn import giou_loss, smooth_l1_loss
from torch import Tensor

from ..layers import nonzero_tuple


class Matcher:
    """Match each prediction to its best ground truth and label it by how good the match is.

    `thresholds` divide the qualities into intervals, each with its entry of `labels`: 1 matched,
    0 background, -1 ignored; a quality equal to a threshold belongs above it. With
    `allow_low_quality_matches` the best predictions of every ground truth are matched, however bad.
    """

    def __init__(
        self,
        thresholds: Sequence[float],
        labels: Sequence[int],
        allow_low_quality_matches: bool = False,
    ):
        thresholds, labels = list(thresholds), list(labels)
        if not thresholds or thresholds[0] <= 0 or thresholds != sorted(thresholds):
            raise ValueError(f"thresholds are positive and increase, got {thresholds}")
        if len(labels) != len(thresholds) + 1 or not set(labels) <= {-1, 0, 1}:
            raise ValueError(f"{len(thresholds) + 1} labels out of -1, 0, 1 wanted, got {labels}")
        self.thresholds = thresholds
        self.labels = labels
        self.allow_low_quality_matches = allow_low_quality_matches

    def __call__(self, match_quality_matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Match M ground truths with N predictions by their quality (IoU), Tensor[M, N].

        Returns the best ground truth of each prediction, Tensor[N] of int64 (0 if M is 0), and its
        label, Tensor[N] of int8.
        """
        quality = match_quality_matrix
        if quality.numel() == 0:
            matches = quality.new_zeros(quality.size(1), dtype=torch.int64)
            return matches, torch.full_like(matches, self.labels[0], dtype=torch.int8)
        if not (quality >= 0).all():
            raise AssertionError("match qualities must not be negative")
        best_quality, matches = quality.max(dim=0)
        limits = quality.new_tensor(self.thresholds)
        interval = torch.bucketize(best_quality, limits, right=True)
        labels = torch.tensor(self.labels, dtype=torch.int8, device=quality.device)[interval]
        if self.allow_low_quality_matches:
            # All predictions that tie for a ground truth's best count.
            best_of_truth = quality.max(dim=1, keepdim=True).values
            labels[(quality == best_of_truth).any(dim=0)] = 1
        return matches, labels


def subsample_labels(
    labels: Tensor, num_samples: int, positive_fraction: float, bg_label: int
) -> tuple[Tensor, Tensor]:
    """Draw at random positives up to a share of the samples, and negatives for the rest.

    `labels` [N] are -1 for ignored, `bg_label` for negative, everything else is positive. Returns
    the indices of the positives and of the negatives drawn, fewer where there are not enough.
    """
    positive = nonzero_tuple((labels != -1) & (labels != bg_label))[0]
    negative = nonzero_tuple(labels == bg_label)[0]
    num_positive = min(positive.numel(), int(num_samples * positive_fraction))
    num_negative = min(negative.numel(), num_samples - num_positive)
    # Positives are drawn before negatives, always: with a seed the same boxes come out everywhere.
    chosen = torch.randperm(positive.numel(), device=positive.device)[:num_positive]
    positive = positive[chosen]
    chosen = torch.randperm(negative.numel(), device=negative.device)[:num_negative]
    return positive, negative[chosen]


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
        scale_clamp: float = math.log(1000.0 / 16),  # so that exp cannot overflow
    ):
        self.weights = weights
        self.scale_clamp = scale_clamp

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Return the deltas that turn `src_boxes` into `target_boxes`: all Tensor[N, 4]."""
        center, size = _center_size(src_boxes)
        target_center, target_size = _center_size(target_boxes)
        if not (size > 0).all():
            raise AssertionError("boxes to regress from must have an extent")
        shift = (target_center - center) / size
        growth = torch.log(target_size / size)
        return torch.cat((shift, growth), dim=-1) * src_boxes.new_tensor(self.weights)

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
    """Return the summed loss of the deltas predicted to turn `src_boxes` into `gt_boxes` [N, 4].

    `loss_type` is "smooth_l1" on the deltas (beta 0: plain L1), or "giou" on the resulting boxes.
    """
    if loss_type == "smooth_l1":
        gt_deltas = transform.get_deltas(src_boxes, gt_boxes)
        return smooth_l1_loss(pred_deltas, gt_deltas, beta=smooth_l1_beta, reduction="sum")
    if loss_type == "giou":
        pred_boxes = transform.apply_deltas(pred_deltas, src_boxes)
        return giou_loss(pred_boxes, gt_boxes, reduction="sum")
    raise ValueError(f"box_reg_loss_type is 'smooth_l1' or 'giou', got {loss_type!r}")


def weigh_losses(losses: dict[str, Tensor], weight: float | dict[str, float]) -> dict[str, Tensor]:
    """Multiply losses by one weight for all, or by a dict's entry of their name (1 if none)."""
    if isinstance(weight, (int, float)):
        return {name: loss * weight for name, loss in losses.items()}
    return {name: loss * weight.get(name, 1.0) for name, loss in losses.items()}
