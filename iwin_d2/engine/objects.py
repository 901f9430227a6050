"""The objects of one image, annotated or predicted, in the one form that pictures are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..d2.data import detection_utils
from ..d2.structures import BoxMode
from ..errors import DataError
from .drawing import Color, class_color, draw_objects

__all__ = [
    "Objects",
    "check_class_names",
    "draw_tile",
    "predicted_objects",
    "read_record_image",
    "spread",
    "true_objects",
]

_OF_METADATA = ("thing_classes", "thing_dataset_id_to_contiguous_id")


@dataclass(frozen=True)
class Objects:
    """The n objects of an image.

    Attributes:
        classes: n class numbers.
        boxes: float[n, 4] (x0, y0, x1, y1) in pixels.
        masks: n of them, in any form that the framework's Visualizer takes; None for none.
        scores: n of them; None for annotations.
    """

    classes: list[int]
    boxes: np.ndarray
    masks: Any = None
    scores: list[float] | None = None

    def __len__(self) -> int:
        return len(self.classes)

    def labels(self, names: Sequence[str]) -> list[str]:
        """The names of the classes, with scores where there are any."""
        labels = [names[c] if c < len(names) else str(c) for c in self.classes]
        if self.scores is None:
            return labels
        return [f"{label} {score:.2f}" for label, score in zip(labels, self.scores)]


def true_objects(record: dict, *, crowds: bool = False) -> Objects:
    """The annotations of a data set's record, without crowds, or the crowds alone."""
    annotations = [a for a in record.get("annotations", ()) if bool(a.get("iscrowd", 0)) == crowds]
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    return Objects(
        classes=[a["category_id"] for a in annotations],
        boxes=np.array(boxes, dtype=float).reshape(-1, 4),
        masks=_all_or_none([a.get("segmentation") for a in annotations]),
    )


def predicted_objects(results: Sequence[dict], to_class: Mapping[int, int]) -> Objects:
    """Predictions on one image, in COCO's results format.

    Args:
        results: of the image.
        to_class: class numbers by category id.

    Raises:
        DataError: a category is none of the data set's.
    """
    unknown = [item for item in results if item["category_id"] not in to_class]
    if unknown:
        raise DataError(
            f"the results hold category_id {unknown[0]['category_id']} (image "
            f"{unknown[0]['image_id']}), which the data set does not have: they belong to another "
            "data set."
        )
    boxes = np.array([item["bbox"] for item in results], dtype=float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Objects(
        classes=[to_class[item["category_id"]] for item in results],
        boxes=boxes,
        masks=_all_or_none([item.get("segmentation") for item in results]),
        scores=[item["score"] for item in results],
    )


def check_class_names(metadata, where: str) -> None:
    """Check that a data set says its classes.

    Args:
        metadata: of the data set.
        where: of what it is the data set, for the message.

    Raises:
        DataError: it does not.
    """
    if not all(hasattr(metadata, name) for name in _OF_METADATA):
        raise DataError(
            f"the data set of {where} does not say its classes: set {' and '.join(_OF_METADATA)} "
            "in its metadata."
        )


def spread(records: Sequence, count: int) -> list:
    """At most `count` records, at least one, spread evenly over all of them."""
    count = max(min(count, len(records)), 1)
    return [records[round(i)] for i in np.linspace(0, len(records) - 1, count)]


def read_record_image(record: dict) -> np.ndarray:
    """The image of a data set's record, RGB, uint8 [H, W, 3].

    Raises:
        DataError: it cannot be read.
    """
    try:
        return detection_utils.read_image(record["file_name"], format="RGB")
    except (OSError, ValueError) as error:
        raise DataError(f"image {record['file_name']} cannot be read: {error}.") from error


def draw_tile(
    image: np.ndarray,
    objects: Objects,
    names: Sequence[str],
    tile_size: int,
    colors: Sequence[Color] | None = None,
) -> Image.Image:
    """The image with its objects on it, the longer side `tile_size` pixels.

    Args:
        image: RGB, uint8 [H, W, 3].
        objects: of it.
        names: of the classes.
        tile_size: in pixels.
        colors: one for each object; by class if None.
    """
    drawn = draw_objects(
        image,
        boxes=objects.boxes,
        masks=objects.masks,
        labels=objects.labels(names),
        colors=[class_color(c) for c in objects.classes] if colors is None else colors,
        scale=tile_size / max(image.shape[:2]),
    )
    return Image.fromarray(drawn)


def _all_or_none(masks: list) -> list | None:
    return masks if masks and all(masks) else None
