"""Predictions in COCO's results format, read from a file or made by a model."""

import math
import os
from collections.abc import Sequence

from ..d2.evaluation import instances_to_coco_json
from ..data.annotation_check import decode_rle_counts
from ..data.coco_json import read_coco_json
from ..engine.class_names import dataset_ids
from ..engine.pipeline import Progress
from ..engine.predictor import Predictor
from ..errors import DataError

__all__ = ["check_images", "load_results", "predict_records"]


def load_results(results_json: str | os.PathLike) -> dict[int, list[dict]]:
    """Read predictions in COCO's results format, by image id.

    Raises:
        DataError: the file cannot be read or holds something else.
    """
    items = read_coco_json(results_json, what="results file")
    needed = {"image_id", "category_id", "bbox", "score"}
    if not isinstance(items, list) or not all(
        isinstance(item, dict) and needed <= item.keys() for item in items
    ):
        raise DataError(
            f"{results_json} is not in COCO's results format: a list of objects with image_id, "
            "category_id, bbox and score, as evaluation writes coco_instances_results.json."
        )
    results: dict[int, list[dict]] = {}
    for number, item in enumerate(items, start=1):
        problem = _problem(item)
        if problem:
            raise DataError(
                f"{results_json}: result number {number} (image {item['image_id']!r}) has "
                f"{problem}: write the file anew, as evaluation does."
            )
        results.setdefault(item["image_id"], []).append(item)
    return results


def check_images(
    results: dict[int, list[dict]], records: Sequence[dict], results_json: str, dataset: str
) -> None:
    """Check that predictions are of a data set's images.

    Args:
        results: by image id.
        records: of the data set.
        results_json: where the results come from, for the message.
        dataset: its name, for the message.

    Raises:
        DataError: some are of other images.
    """
    others = sorted(results.keys() - {record["image_id"] for record in records})
    if others:
        raise DataError(
            f"{results_json} has predictions for image {others[0]} (and {len(others) - 1} more "
            f"images) that data set {dataset!r} does not have: give the results of an evaluation "
            "on that data set."
        )


def predict_records(
    predictor: Predictor, records: Sequence[dict], metadata, *, batch_size: int, workers: int
) -> dict[int, list[dict]]:
    """Predict the images of a data set.

    Args:
        predictor: of the data set's classes.
        records: with file_name and image_id.
        metadata: of the data set; gives the category ids.
        batch_size: the most images in one pass of the model.
        workers: threads that read images.

    Returns:
        results in COCO's format by image id, of any score.

    Raises:
        DataError: an image cannot be read, or a class is none of the data set's.
    """
    progress, to_dataset_id = Progress("images", len(records)), dataset_ids(metadata)
    results = {}
    paths = [record["file_name"] for record in records]
    outputs = predictor.stream(paths, batch_size, workers)
    for record, output in zip(records, outputs):
        found = instances_to_coco_json(output["instances"], record["image_id"])
        for item in found:
            if item["category_id"] not in to_dataset_id:
                raise DataError(
                    f"The model predicts class {item['category_id']}, but the data set has "
                    f"{len(to_dataset_id)} classes: give a checkpoint that was trained on it."
                )
            item["category_id"] = to_dataset_id[item["category_id"]]
        results[record["image_id"]] = found
        progress.step()
    return results


def _problem(item: dict) -> str | None:
    """What keeps a result from being drawn."""
    numbers = [*item["bbox"], item["score"]] if isinstance(item["bbox"], list) else []
    if len(numbers) != 5 or not all(type(value) in (int, float) for value in numbers):
        return "no bbox of four numbers, or no number as its score"
    if not all(map(math.isfinite, numbers)):
        return "numbers that are not finite"
    if type(item["image_id"]) is not int or type(item["category_id"]) is not int:
        return "no whole numbers as image_id and category_id"
    mask = item.get("segmentation")
    if isinstance(mask, dict) and not _decodes(mask):
        return "a damaged mask"
    return None


def _decodes(rle: dict) -> bool:
    """Whether a compressed mask is whole; pycocotools does not look."""
    counts, size = rle.get("counts"), rle.get("size")
    if not isinstance(counts, str) or not isinstance(size, list) or len(size) != 2:
        return False
    lengths = decode_rle_counts(counts)
    return lengths is not None and sum(lengths) == size[0] * size[1]
