"""What an evaluation of semantic segmentation writes."""

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...files import atomic_write
from ..confusion_picture import ConfusionCaptions, draw_confusion
from .label_format import LabelFormat
from .metrics import SegmentationMetrics

__all__ = ["CAPTIONS", "label_file_name", "write_label", "write_results"]

CAPTIONS = ConfusionCaptions(
    unit="pixels",
    score_name="IoU",
    score=lambda confusion: SegmentationMetrics.of(confusion).iou,
    rank_name="pixels",
    rank=lambda confusion: confusion.sum(1),
)


def write_results(
    folder: str,
    dataset_name: str,
    class_names: Sequence[str],
    confusion: np.ndarray,
    metrics: SegmentationMetrics,
    results: Mapping[str, float],
    counts: Mapping[str, int],
) -> None:
    """Write results.json, per_class.csv, confusion.csv and confusion.png.

    Args:
        folder: is made if need be.
        dataset_name: of what was evaluated.
        class_names: of its C classes.
        confusion: int64 [C, C].
        metrics: of that.
        results: the same in percent, by name.
        counts: of images and pixels, by name.
    """
    os.makedirs(folder, exist_ok=True)
    known = {name: value if math.isfinite(value) else None for name, value in results.items()}
    with atomic_write(os.path.join(folder, "results.json"), "w") as file:
        json.dump({"data_set": dataset_name, **counts, "sem_seg": known}, file, indent=1)
    _write_csv(
        os.path.join(folder, "per_class.csv"),
        ["number", "class", "IoU", "ACC", "pixels", "predicted pixels"],
        [
            [number, name, _percent(iou), _percent(accuracy), truth, predicted]
            for number, (name, iou, accuracy, truth, predicted) in enumerate(
                zip(class_names, metrics.iou, metrics.accuracy, confusion.sum(1), confusion.sum(0))
            )
        ],
    )
    _write_csv(
        os.path.join(folder, "confusion.csv"),
        ["truth \\ predicted", *class_names],
        [[name, *row] for name, row in zip(class_names, confusion.tolist())],
    )
    heading = f"{dataset_name}: {counts['images']} images"
    if math.isfinite(results["mIoU"]):
        heading += f", mIoU {results['mIoU']:.2f} %, pixel accuracy {results['pACC']:.2f} %"
    with atomic_write(os.path.join(folder, "confusion.png")) as file:
        draw_confusion(confusion, class_names, CAPTIONS, heading).save(file, format="png")


def write_label(
    labels: np.ndarray, record: Mapping[str, Any], form: LabelFormat, folder: str
) -> None:
    """Write the predicted classes of an image as a label image like those of its data set.

    Args:
        labels: integer [H, W], class numbers.
        record: of the image.
        form: what the values of the data set's label files mean; its num_classes is known.
        folder: to write into, under the name that `label_file_name` gives.
    """
    values = np.array(form.file_values())
    values = values.astype(np.uint8 if values.max() < 256 else np.uint16)
    path = Path(folder, label_file_name(record))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        Image.fromarray(values[labels]).save(file, format="png")


def label_file_name(record: Mapping[str, Any]) -> str:
    """The name of an image's file among predicted label images, with a folder, perhaps.

    That of the image's id or, where that is a number or a path, of the image.
    """
    name = record.get("image_id")
    if not isinstance(name, str) or name == record["file_name"]:
        name = Path(record["file_name"]).stem
    return "/".join(part for part in f"{name}.png".split("/") if part not in ("", ".."))


def _write_csv(path: str, header: Sequence, rows: Sequence[Sequence]) -> None:
    with atomic_write(path, "w") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def _percent(share: float) -> str:
    """In percent; empty for NaN."""
    return f"{100 * share:.4f}" if math.isfinite(share) else ""
