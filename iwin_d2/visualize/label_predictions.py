"""Predicted label maps beside the truth: the worst images first, or many on one sheet."""

import heapq
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.semantic_segmentation.metrics import SegmentationMetrics, count_confusions
from ..engine.objects import read_record_image
from ..engine.panels import Panel, compose
from ..engine.segment_drawing import draw_errors, draw_segments, share_text
from ..errors import DataError
from .label_data import legend_of
from .label_maps import IGNORED, true_labels
from .output import number_of, picture_name, save_picture, write_csv, write_html
from .sheet import lay_out_pairs

__all__ = ["draw_worst_labels", "label_sheet"]


@dataclass(frozen=True)
class _Scored:
    """An image and how well its predicted labels fit.

    Attributes:
        record: of the data set.
        metrics: of this image alone.
        ignored: the share of its pixels that do not count.
        worst: the class of the lowest IoU, None where no pixel counts.
    """

    record: dict
    metrics: SegmentationMetrics
    ignored: float
    worst: int | None

    @property
    def name(self) -> str:
        """The file with the image's id."""
        return f"{os.path.basename(self.record['file_name'])} (image {self.record['image_id']})"

    def __str__(self) -> str:
        if math.isnan(self.metrics.mean_iou):
            return "no pixel counts"
        accuracy = share_text(self.metrics.pixel_accuracy)
        return f"mIoU {share_text(self.metrics.mean_iou)}, {accuracy} of the pixels right"


def draw_worst_labels(
    predicted: Iterable[tuple[dict, np.ndarray]],
    class_names: Sequence[str],
    folder: str | os.PathLike,
    *,
    max_images: int = 12,
    tile_size: int = 480,
) -> Path:
    """Draw truth, prediction and errors for the images that fit least.

    The score of an image is its mean IoU over the classes that occur in its truth or its
    prediction. Of all images, drawn or not, index.csv has the scores, worst first; images in which
    no pixel counts come last. index.html shows the pictures. The label maps of `max_images` images
    are in memory, whatever their number.

    Args:
        predicted: records of a data set of semantic segmentation, each with predicted class
            numbers, integers [H, W].
        class_names: of the data set.
        folder: to write into; made if missing.
        max_images: how many images to draw at most.
        tile_size: pixels of the longer side of each drawing.

    Returns:
        the path of index.html.

    Raises:
        DataError: there are no images, an image or its label image cannot be read, a prediction is
            of another size or of other classes, or the folder cannot be written to.
    """
    folder = Path(folder)
    worst: list[tuple[float, float, int, np.ndarray]] = []  # a heap, the best of them first
    scored: list[_Scored] = []
    for number, (record, labels) in enumerate(predicted):
        scored.append(_score(record, labels, len(class_names)))
        key = _rank(scored[-1])
        heapq.heappush(worst, (-key[0], -key[1], -number, labels))
        if len(worst) > max_images:
            heapq.heappop(worst)
    if not scored:
        raise DataError(f"There are no images to draw in {folder}: the data set is empty.")
    maps = {-item[2]: item[3] for item in worst}
    order = sorted(range(len(scored)), key=lambda number: (*_rank(scored[number]), number))
    rows, shown = [], []
    for rank, number in enumerate(order, start=1):
        item, picture = scored[number], ""
        if number in maps:
            picture = picture_name(rank, item.record["file_name"])
            heading = f"{rank} of {len(scored)}: {item.name}, {item}"
            drawn = _draw(item, maps[number], heading, class_names, tile_size)
            save_picture(drawn, folder / picture)
            shown.append((picture, heading))
        rows.append(_row(rank, item, class_names, picture))
    write_csv(folder, rows)
    remark = (
        f"{number_of(len(shown), 'image')} of {len(scored)}, worst first: by the mean IoU of the "
        "classes that occur in the truth or in the prediction of the image. All images are in "
        "index.csv."
    )
    return write_html(folder, "Predictions beside ground truth", remark, shown)


def label_sheet(
    predicted: Iterable[tuple[dict, np.ndarray]],
    class_names: Sequence[str],
    output: str | os.PathLike,
    *,
    pairs_per_row: int = 3,
    tile_size: int = 320,
) -> str:
    """Draw truth beside prediction for all these images on one sheet.

    Args:
        predicted: as for `draw_worst_labels`.
        class_names: of the data set.
        output: the PNG file to write.
        pairs_per_row: how many images to draw side by side.
        tile_size: pixels of the longer side of each drawing.

    Returns:
        the path of the file.

    Raises:
        DataError: as `draw_worst_labels`.
    """
    pairs, maps = [], []
    for record, labels in predicted:
        item, truth = _score(record, labels, len(class_names)), true_labels(record)
        image = read_record_image(record)
        pairs.append(
            (
                [_tile(image, shown, tile_size) for shown in (truth, labels)],
                f"{os.path.basename(record['file_name'])}: {item}",
            )
        )
        maps += [_small(truth), _small(labels)]
    if not pairs:
        raise DataError(f"There are no images to draw on {output}: the data set is empty.")
    legend, _ = legend_of(maps, class_names)
    titles = ("ground truth", "prediction")
    sheet = lay_out_pairs(pairs, titles, legend, min(pairs_per_row, len(pairs)), tile_size)
    return save_picture(sheet, output)


def _score(record: dict, labels: np.ndarray, num_classes: int) -> _Scored:
    truth = true_labels(record)
    if truth.shape != labels.shape:
        sizes = [f"{shape[1]} x {shape[0]}" for shape in (truth.shape, labels.shape)]
        raise DataError(
            f"{record['sem_seg_file_name']} is {sizes[0]} pixels, but the prediction for its image "
            f"{record['file_name']} {sizes[1]}: they have to be of one size; run the evaluation "
            "again if the data have changed."
        )
    if labels.size and labels.max() >= num_classes:
        raise DataError(
            f"Class {labels.max()} is predicted for {record['file_name']}, but the data set has "
            f"{num_classes} classes: give predictions of a model that was trained on it."
        )
    confusion = count_confusions(truth, labels, num_classes, IGNORED)
    metrics = SegmentationMetrics.of(confusion)
    counted = bool(confusion.any())
    return _Scored(
        record,
        metrics,
        float((truth == IGNORED).mean()),
        int(np.nanargmin(metrics.iou)) if counted else None,
    )


def _rank(item: _Scored) -> tuple[float, float]:
    """Small for bad images; those that nothing is known of are the last."""
    if math.isnan(item.metrics.mean_iou):
        return 2.0, 2.0
    return item.metrics.mean_iou, item.metrics.pixel_accuracy


def _row(rank: int, item: _Scored, names: Sequence[str], picture: str) -> dict:
    """A line of index.csv; shares from 0 to 1, empty where no pixel counts."""
    known = item.worst is not None
    return {
        "rank": rank,
        "image_id": item.record["image_id"],
        "file_name": item.record["file_name"],
        "miou": f"{item.metrics.mean_iou:.4f}" if known else "",
        "pixel_accuracy": f"{item.metrics.pixel_accuracy:.4f}" if known else "",
        "ignored": f"{item.ignored:.4f}",
        "worst_class": names[item.worst] if known else "",
        "worst_iou": f"{item.metrics.iou[item.worst]:.4f}" if known else "",
        "picture": picture,
    }


def _draw(
    item: _Scored, labels: np.ndarray, heading: str, names: Sequence[str], tile_size: int
) -> Image.Image:
    """Truth, prediction and errors beside each other."""
    image, truth = read_record_image(item.record), true_labels(item.record)
    counted = truth != IGNORED
    wrong = float((truth != labels)[counted].mean()) if counted.any() else 0.0
    errors = draw_errors(image, truth, labels, scale=tile_size / max(image.shape[:2]))
    panels = [
        Panel("ground truth", _tile(image, truth, tile_size)),
        Panel("prediction", _tile(image, labels, tile_size)),
        Panel(f"wrong, in red: {share_text(wrong)} of the pixels", Image.fromarray(errors)),
    ]
    iou = dict(zip(names, item.metrics.iou))
    legend, remarks = legend_of([truth, labels], names)
    legend = [
        (f"{name} {_percent(iou.get(name, math.nan))}".strip(), color) for name, color in legend
    ]
    remarks.append("Behind a class its IoU on this image; pixels of no class do not count.")
    return compose(panels, heading=heading, legend=legend, remarks=remarks)


def _percent(share: float) -> str:
    return "" if math.isnan(share) else share_text(share)


def _tile(image: np.ndarray, labels: np.ndarray, tile_size: int) -> Image.Image:
    return Image.fromarray(draw_segments(image, labels, scale=tile_size / max(image.shape[:2])))


def _small(labels: np.ndarray) -> np.ndarray:
    """Enough of a label map to tell which classes are to be seen."""
    step = max(max(labels.shape) // 400, 1)
    return labels[::step, ::step]
