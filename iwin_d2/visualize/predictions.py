"""Predictions beside ground truth, one picture an image, the worst images first."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..engine.objects import (
    Objects,
    check_class_names,
    draw_tile,
    predicted_objects,
    read_record_image,
    true_objects,
)
from ..engine.panels import Panel, compose
from ..errors import DataError
from .matching import IOU, ImageScore, score_image
from .output import number_of, picture_name, save_picture, write_csv, write_html

__all__ = ["draw_worst"]

_RIGHT, _MISSED, _WRONG, _IGNORED = (0.1, 0.65, 1.0), (1.0, 0.62, 0.0), (1.0, 0.1, 0.3), (0.6,) * 3


@dataclass(frozen=True)
class _Scored:
    record: dict
    truth: Objects
    predicted: Objects
    score: ImageScore


def draw_worst(
    records: Sequence[dict],
    results: dict[int, list[dict]],
    metadata,
    folder: str | os.PathLike,
    *,
    max_images: int = 12,
    score_threshold: float = 0.5,
    tile_size: int = 560,
) -> Path:
    """Draw ground truth beside predictions for the images that fit least.

    The score of an image is the F1 of its boxes (`score_image`). Objects that were missed and
    predictions that are wrong have colours of their own. Of all images, drawn or not, index.csv
    has the score, worst first; index.html shows the pictures.

    Args:
        records: of the data set, in the framework's format, with annotations.
        results: predictions by image id, as from `load_results`.
        metadata: of the data set: `thing_classes` and `thing_dataset_id_to_contiguous_id`.
        folder: to write into; made if missing.
        max_images: how many images to draw at most.
        score_threshold: predictions below it neither count nor are drawn.
        tile_size: pixels of the longer side of each drawing.

    Returns:
        the path of index.html.

    Raises:
        DataError: there are no records, none is annotated, the metadata lacks the classes, the
            results are of another data set, an image cannot be read, or the folder cannot be
            written to.
    """
    if not records:
        raise DataError(f"there are no images to draw in {folder}: the data set is empty.")
    if not any(record.get("annotations") for record in records):
        raise DataError(
            f"there is nothing to compare predictions with in {folder}: no image of the data set "
            "has annotations."
        )
    check_class_names(metadata, str(folder))
    scored = [_score(record, results, metadata, score_threshold) for record in records]
    scored.sort(key=lambda s: (s.score.f1, -s.score.missed - s.score.wrong, s.record["image_id"]))
    folder = Path(folder)
    rows, shown = [], []
    for rank, item in enumerate(scored, start=1):
        picture = ""
        if rank <= max_images:
            picture = picture_name(rank, item.record["file_name"])
            heading = f"{rank} of {len(scored)}: {_name(item)}, {item.score}"
            _draw(
                item, heading, metadata.thing_classes, score_threshold, tile_size, folder / picture
            )
            shown.append((picture, heading))
        rows.append(_row(rank, item, picture))
    write_csv(folder, rows)
    remark = (
        f"{number_of(len(shown), 'image')} of {len(scored)}, worst first: by F1 of boxes of score "
        f"{score_threshold:g} or more that overlap an object of their class by an IoU of {IOU:g} "
        "or more. All images are in index.csv."
    )
    return write_html(folder, "Predictions beside ground truth", remark, shown)


def _score(record: dict, results: dict, metadata, threshold: float) -> _Scored:
    found = [item for item in results.get(record["image_id"], ()) if item["score"] >= threshold]
    to_class = metadata.thing_dataset_id_to_contiguous_id
    truth, predicted = true_objects(record), predicted_objects(found, to_class)
    score = score_image(truth, predicted, true_objects(record, crowds=True))
    return _Scored(record, truth, predicted, score)


def _name(item: _Scored) -> str:
    return f"{os.path.basename(item.record['file_name'])} (image {item.record['image_id']})"


def _row(rank: int, item: _Scored, picture: str) -> dict:
    """A line of index.csv."""
    return {
        "rank": rank,
        "image_id": item.record["image_id"],
        "file_name": item.record["file_name"],
        "f1": f"{item.score.f1:.4f}",
        "found": int(item.score.found.sum()),
        "missed": item.score.missed,
        "wrong": item.score.wrong,
        "picture": picture,
    }


def _draw(
    item: _Scored, heading: str, names: Sequence[str], threshold: float, tile_size: int, path: Path
) -> None:
    """Draw one image twice: the annotations, and the predictions."""
    image = read_record_image(item.record)
    score = item.score
    of_truth = [_RIGHT if found else _MISSED for found in score.found]
    of_predictions = [
        _RIGHT if right else _IGNORED if ignored else _WRONG
        for right, ignored in zip(score.right, score.ignored)
    ]
    truth = number_of(item.truth, "object")
    predicted = number_of(item.predicted, "prediction")
    panels = [
        Panel(
            f"ground truth: {truth}",
            draw_tile(image, item.truth, names, tile_size, of_truth),
        ),
        Panel(
            f"predicted: {predicted} of score {threshold:g} or more",
            draw_tile(image, item.predicted, names, tile_size, of_predictions),
        ),
    ]
    legend = [
        (f"found: right class, IoU of boxes {IOU:g} or more", _RIGHT),
        ("missed object", _MISSED),
        ("wrong prediction", _WRONG),
    ]
    if score.ignored.any():
        legend.append(("on a crowd, not counted", _IGNORED))
    save_picture(compose(panels, heading=heading, legend=legend), path)
