"""How often a classifier is right."""

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["MOST_CONFUSED", "ClassificationMetrics"]

MOST_CONFUSED = 4096  # classes of which there is a confusion matrix: its memory goes by the square


@dataclass(frozen=True)
class ClassificationMetrics:
    """What a set of predictions comes to; shares from 0 to 1, NaN of nothing.

    Attributes:
        top1: of the items whose class has the highest score.
        top5: whose class is among the five highest.
        mean_class_accuracy: the mean over the classes that occur of the share that is right.
        items: int64 [C], of each class.
        right: int64 [C], how many of them are right.
        confusion: int64 [C, C], items by true class (row) and predicted class (column); None of
            more than 4,096 classes.
    """

    top1: float
    top5: float
    mean_class_accuracy: float
    items: np.ndarray
    right: np.ndarray
    confusion: np.ndarray | None

    @classmethod
    def of(cls, labels: np.ndarray, best: np.ndarray, num_classes: int) -> "ClassificationMetrics":
        """Count.

        Args:
            labels: int [N], true classes.
            best: int [N, 5 or fewer], the classes of the highest scores, the highest first.
            num_classes: C.
        """
        labels = labels.astype(np.int64)
        hits = best == labels[:, None]
        items = np.bincount(labels, minlength=num_classes)
        right = np.bincount(labels[hits[:, 0]], minlength=num_classes)
        occurs = items > 0
        confusion = None
        if num_classes <= MOST_CONFUSED:
            cells = labels * num_classes + best[:, 0]
            confusion = np.bincount(cells, minlength=num_classes**2)
            confusion = confusion.reshape(num_classes, num_classes)
        return cls(
            top1=float(hits[:, 0].mean()) if len(hits) else math.nan,
            top5=float(hits.any(1).mean()) if len(hits) else math.nan,
            mean_class_accuracy=(
                float((right[occurs] / items[occurs]).mean()) if occurs.any() else math.nan
            ),
            items=items,
            right=right,
            confusion=confusion,
        )

    @property
    def class_accuracy(self) -> np.ndarray:
        """The share of each class's items that is right, float [C]; NaN of classes without any."""
        nothing = np.full(len(self.items), math.nan)
        return np.divide(self.right, self.items, out=nothing, where=self.items > 0)
