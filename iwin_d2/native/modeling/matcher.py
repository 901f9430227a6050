"""Which ground truth a box answers for."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Matcher"]


class Matcher:
    """Match each prediction to its best ground truth and label it by how good the match is.

    Args:
        thresholds: increasing limits between the intervals of match quality.
        labels: the label of each interval, one more than there are thresholds: 1 matched,
            0 background, -1 ignored. A quality equal to a threshold belongs to the interval above.
        allow_low_quality_matches: also label 1 the predictions that are the best of any ground
            truth, however bad they are.

    Raises:
        ValueError: thresholds or labels as they cannot be.
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

        Returns:
            matches: Tensor[N] of int64, the best ground truth of each prediction (0 if M is 0).
            match_labels: Tensor[N] of int8, -1, 0 or 1.
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
