"""Metrics of semantic segmentation: how many pixels of each class were taken for which.

Everything is computed from a confusion matrix, int64 [C, C]: a row for each class of the truth, a
column for each class predicted, a count of pixels in each cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["SegmentationMetrics", "count_confusions"]


def count_confusions(
    truth: np.ndarray, predicted: np.ndarray, num_classes: int, ignore_value: int
) -> np.ndarray:
    """Count the pixels of each pair of classes.

    Args:
        truth: integer [H, W], class numbers and `ignore_value`, whose pixels are left out.
        predicted: integer [H, W], class numbers.
        num_classes: C.
        ignore_value: no class number.

    Returns:
        int64 [C, C]; rows are classes of the truth, columns classes predicted.

    Raises:
        ValueError: a number is none of a class.
    """
    rows = truth.astype(np.int64)
    ignored = truth == ignore_value
    rows[ignored] = 0
    for numbers in (rows, predicted):
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < num_classes:
            raise ValueError(f"class numbers {numbers.min()} to {numbers.max()} of {num_classes}")
    rows[ignored] = num_classes  # one more row
    rows *= num_classes
    rows += predicted
    counts = np.bincount(rows.reshape(-1), minlength=(num_classes + 1) * num_classes)
    return counts.reshape(num_classes + 1, num_classes)[:num_classes]


@dataclass(frozen=True)
class SegmentationMetrics:
    """What a confusion matrix says, as shares between 0 and 1.

    A class that occurs neither in the truth nor in the predictions has the IoU NaN, a class that
    does not occur in the truth the accuracy NaN; means leave these out, as MMSegmentation's and
    Detectron2's do. Without any pixel that counts, all is NaN.

    Attributes:
        iou: float [C], intersection over union of each class.
        accuracy: float [C], the share of the truth's pixels of each class that were found.
        mean_iou: of the classes that occur in the truth or in the predictions; one that is only
            predicted counts as 0, as in MMSegmentation (Detectron2 leaves it out).
        mean_accuracy: of the classes that occur in the truth.
        weighted_iou: mean IoU, weighted by the truth's pixels.
        pixel_accuracy: the share of all pixels that were found.
    """

    iou: np.ndarray
    accuracy: np.ndarray
    mean_iou: float
    mean_accuracy: float
    weighted_iou: float
    pixel_accuracy: float

    @classmethod
    def of(cls, confusion: np.ndarray) -> "SegmentationMetrics":
        """Compute the metrics of a confusion matrix, integer [C, C]."""
        hits = confusion.diagonal()
        truth, predicted = confusion.sum(1), confusion.sum(0)
        iou = _share(hits, truth + predicted - hits)
        return cls(
            iou=iou,
            accuracy=_share(hits, truth),
            mean_iou=_mean(iou),
            mean_accuracy=_mean(_share(hits, truth)),
            weighted_iou=float(_share(np.nansum(iou * truth), truth.sum())),
            pixel_accuracy=float(_share(hits.sum(), truth.sum())),
        )

    def in_percent(self, class_names: Sequence[str]) -> dict[str, float]:
        """All of them, in percent, by the names that Detectron2's SemSegEvaluator has for them."""
        percent = {
            "mIoU": self.mean_iou,
            "fwIoU": self.weighted_iou,
            **{f"IoU-{name}": float(value) for name, value in zip(class_names, self.iou)},
            "mACC": self.mean_accuracy,
            "pACC": self.pixel_accuracy,
            **{f"ACC-{name}": float(value) for name, value in zip(class_names, self.accuracy)},
        }
        return {name: 100 * value for name, value in percent.items()}


def _share(part, whole) -> np.ndarray:
    """A part of a whole, NaN where whole is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    """The mean of the values that are not NaN; NaN if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
