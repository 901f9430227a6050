"""How well the predictions of one image fit its annotations."""

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import box_iou

from ..engine.objects import Objects

__all__ = ["IOU", "ImageScore", "score_image"]

IOU = 0.5  # from which on a prediction is taken for an object of its class


@dataclass(frozen=True)
class ImageScore:
    """Which objects of an image were found, and which predictions are right.

    Attributes:
        found: bool[n], for each annotated object.
        right: bool[m], for each prediction.
        ignored: bool[m]: predictions on crowds, which are neither right nor wrong.
    """

    found: np.ndarray
    right: np.ndarray
    ignored: np.ndarray

    @property
    def missed(self) -> int:
        """Objects without a prediction."""
        return int((~self.found).sum())

    @property
    def wrong(self) -> int:
        """Predictions without an object."""
        return int((~self.right & ~self.ignored).sum())

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; 1 where there is nothing and none was said."""
        hits = int(self.found.sum())
        errors = self.missed + self.wrong
        return 2 * hits / (2 * hits + errors) if hits + errors else 1.0

    def __str__(self) -> str:
        counts = f"{int(self.found.sum())} found, {self.missed} missed, {self.wrong} wrong"
        return f"F1 {self.f1:.2f}: {counts}"


def score_image(truth: Objects, predicted: Objects, crowds: Objects) -> ImageScore:
    """Match predictions with annotations as COCO's evaluation does, at an IoU of boxes of 0.5.

    In the order of their scores, predictions take the object of their class that they overlap most
    and that is not taken. What is then left and lies by half in a crowd of its class is ignored.

    Args:
        truth: the annotated objects, without crowds.
        predicted: with scores; those too low to count left out.
        crowds: the annotated crowds.
    """
    iou = _of_one_class(_iou(predicted, truth), predicted, truth)
    found = np.zeros(len(truth), dtype=bool)
    right = np.zeros(len(predicted), dtype=bool)
    for index in np.argsort(-np.asarray(predicted.scores, dtype=float), kind="stable"):
        open_iou = np.where(found, -1.0, iou[index])
        if len(truth) and open_iou.max() >= IOU:
            found[open_iou.argmax()] = True
            right[index] = True
    inside = _of_one_class(_share_inside(predicted, crowds), predicted, crowds)
    return ImageScore(found, right, ~right & (inside >= IOU).any(1))


def _of_one_class(overlap: np.ndarray, predicted: Objects, truth: Objects) -> np.ndarray:
    """The overlaps [m, n], those of two different classes set to 0."""
    same = np.asarray(predicted.classes)[:, None] == np.asarray(truth.classes)[None]
    return np.where(same.reshape(overlap.shape), overlap, 0.0)


def _iou(a: Objects, b: Objects) -> np.ndarray:
    return box_iou(torch.from_numpy(a.boxes), torch.from_numpy(b.boxes)).nan_to_num().numpy()


def _share_inside(a: Objects, b: Objects) -> np.ndarray:
    """Of the area of each box of `a`, the share in each of `b`: [m, n]."""
    low = np.maximum(a.boxes[:, None, :2], b.boxes[None, :, :2])
    high = np.minimum(a.boxes[:, None, 2:], b.boxes[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(-1)
    area = np.clip(a.boxes[:, 2:] - a.boxes[:, :2], 0, None).prod(-1)[:, None]
    return np.divide(both, area, out=np.zeros_like(both), where=area > 0)
