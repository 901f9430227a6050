"""Choosing the boxes that a loss is computed on."""

import torch
from torch import Tensor

from ..layers import nonzero_tuple

__all__ = ["subsample_labels"]


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
