"""Cross-entropy of every pixel, with what is used against classes that are rare or hard."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SegmentationLoss", "balanced_weights"]


def balanced_weights(pixels: Sequence[int]) -> list[float]:
    """Weights that let every class count alike, whatever its share of the pixels.

    The median of the classes' frequencies divided by each one's (Eigen and Fergus 2015, section
    6.3.2).

    Args:
        pixels: of each class in the training set; 0 for one without, which gets the weight 1.

    Raises:
        ValueError: numbers are negative, or all of them 0.
    """
    present = sorted(count for count in pixels if count > 0)
    if not present or min(pixels) < 0:
        raise ValueError(f"pixels must be counts, not all of them 0, got {list(pixels)}")
    middle = len(present) // 2
    median = (present[middle] + present[~middle]) / 2
    return [median / count if count else 1.0 for count in pixels]


class SegmentationLoss(nn.Module):
    """The mean cross-entropy of the pixels that have a class.

    Pixels to ignore stay out of the mean, so a crop of them alone changes nothing; where a batch
    has no others, the loss is 0 and so are its gradients.

    Args:
        class_weights: a factor for each class; the mean is then one of weighted pixels.
            `balanced_weights` makes such factors. None for 1.
        ohem_threshold: online hard example mining: only pixels whose own class has a probability
            below this are learnt from, ...
        ohem_min_kept: ... and at least so many of them for each image of the batch, the hardest.
            Alone it says how many. None for both: all pixels.

    Source: OHEM as MMSegmentation's `OHEMPixelSampler` documents it.
    """

    def __init__(
        self,
        *,
        class_weights: Sequence[float] | None = None,
        ohem_threshold: float | None = None,
        ohem_min_kept: int | None = None,
    ):
        super().__init__()
        weights = None if class_weights is None else [float(weight) for weight in class_weights]
        if weights is not None and not all(0 <= weight < math.inf for weight in weights):
            raise ValueError(f"class_weights must be numbers from 0 on, got {weights}")
        if ohem_threshold is not None and not 0 < ohem_threshold <= 1:
            raise ValueError(f"ohem_threshold must lie above 0 and up to 1, got {ohem_threshold}")
        if ohem_min_kept is not None and ohem_min_kept < 1:
            raise ValueError(f"ohem_min_kept must be at least 1 pixel, got {ohem_min_kept}")
        self.ohem_threshold, self.ohem_min_kept = ohem_threshold, ohem_min_kept
        # Not saved: they are part of the config.
        buffer = None if weights is None else torch.tensor(weights)
        self.register_buffer("class_weights", buffer, persistent=False)

    def check_num_classes(self, num_classes: int) -> None:
        """Raise ValueError unless the weights are for so many classes."""
        if self.class_weights is not None and len(self.class_weights) != num_classes:
            raise ValueError(
                f"class_weights has {len(self.class_weights)} numbers for {num_classes} classes"
            )

    def forward(self, logits: Tensor, targets: Tensor, ignore_value: int = 255) -> Tensor:
        """Compute the loss, a scalar.

        Args:
            logits: Tensor[B, K, H, W].
            targets: Tensor[B, H, W] of int64, classes or `ignore_value`.
            ignore_value: of pixels that have no class.
        """
        logits = logits.float()
        losses = F.cross_entropy(
            logits, targets, self.class_weights, ignore_index=ignore_value, reduction="none"
        )
        counted = targets != ignore_value
        if self.ohem_threshold is not None or self.ohem_min_kept is not None:
            counted = self._hard(logits.detach(), targets, counted)
            losses = losses * counted
        if self.class_weights is None:
            total = counted.sum()
        else:
            # Whatever the value to ignore, it is an index here for a moment.
            of_pixels = self.class_weights[targets.where(counted, 0)]
            total = (of_pixels * counted).sum()
        return losses.sum() / torch.where(total > 0, total, 1)

    @torch.no_grad()
    def _hard(self, logits: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
        """Tensor[B, H, W] of bool: the pixels that are to be learnt from."""
        own = F.cross_entropy(logits, targets.where(counted, 0), reduction="none").neg().exp()
        own = own.where(counted, 2.0)  # behind all others
        limit = own.new_tensor(0.0 if self.ohem_threshold is None else self.ohem_threshold)
        hard = own < limit
        if self.ohem_min_kept is not None:
            kept = min(self.ohem_min_kept * len(targets), own.numel())
            hard |= own <= own.flatten().kthvalue(kept).values
        return hard & counted
