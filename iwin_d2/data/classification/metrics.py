"""How often a classifier is right."""

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["ClassificationMetrics"]


@dataclass(frozen=True)
class ClassificationMetrics:
    """What a set of predictions comes to; shares from 0 to 1, NaN of nothing.

    Attributes:
        top1: of the items whose class has the highest score.
        top5: whose class is among the five highest.
        mean_class_accuracy: the mean over the classes that occur of the share that is right.
        confusion: int64 [C, C], items by true class (row) and predicted class (column).
    """

    top1: float
    top5: float
    mean_class_accuracy: float
    confusion: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, best: np.ndarray, num_classes: int) -> "ClassificationMetrics":
        """Count.

        Args:
            labels: int [N], true classes.
            best: int [N, 5 or fewer], the classes of the highest scores, the highest first.
            num_classes: C.
        """
        cells = labels.astype(np.int64) * num_classes + best[:, 0]
        confusion = np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)
        items = confusion.sum(1)
        occurs = items > 0
        accuracy = np.diag(confusion)[occurs] / items[occurs]
        hits = best == labels[:, None]
        return cls(
            top1=float(hits[:, 0].mean()) if len(hits) else math.nan,
            top5=float(hits.any(1).mean()) if len(hits) else math.nan,
            mean_class_accuracy=float(accuracy.mean()) if len(accuracy) else math.nan,
            confusion=confusion,
        )

    @property
    def class_accuracy(self) -> np.ndarray:
        """The share of each class's items that is right, float [C]; NaN of classes without any."""
        items = self.confusion.sum(1)
        right = np.diag(self.confusion).astype(float)
        return np.divide(right, items, out=np.full(len(items), math.nan), where=items > 0)
