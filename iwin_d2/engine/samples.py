"""Predictions on a few images of a test set, kept while it is evaluated and drawn for people."""

import logging
import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..d2.data import MetadataCatalog
from ..d2.evaluation import DatasetEvaluator, instances_to_coco_json
from ..d2.utils import comm
from ..data.semantic_segmentation import LabelFormat, read_label
from ..modeling.segmentation_inference import predicted_labels
from .build import build, reason_of
from .model_check import dataset_names
from .objects import draw_tile, predicted_objects, read_record_image, spread, true_objects
from .panels import Panel, compose
from .segment_drawing import HATCHED, draw_segments, segment_color

__all__ = ["ObjectSamples", "PredictionSamples", "SegmentationSamples", "make_samples"]

logger = logging.getLogger(__name__)

_THRESHOLD = 0.5  # of the scores of what is drawn
_TILE = 480  # pixels of the longer side of a drawing
_LEGEND = 24  # classes in a legend
_NO_CLASS = -1


class PredictionSamples(DatasetEvaluator):
    """Keeps the predictions on a few images while a data set is evaluated, and draws them.

    To be evaluated beside the evaluator proper, in every process. Whatever goes wrong with it is
    logged: no training is to end for a picture. Subclasses define `_keep` and `_draw`.
    """

    def __init__(self, records: Sequence[dict], class_names: Sequence[str]):
        """Prepare to keep predictions.

        Args:
            records: the images, in the framework's format, with their truth.
            class_names: of the data set.
        """
        self._records = {_identity(record): record for record in records}
        self._class_names = list(class_names)
        self._found: dict[Hashable, Any] = {}
        self._problem = ""

    def reset(self) -> None:
        self._found, self._problem = {}, ""

    def process(self, inputs: list, outputs: list) -> None:
        try:
            for item, output in zip(inputs, outputs):
                number = _identity(item)
                if number in self._records:
                    self._found[number] = self._keep(output, number)
        except Exception as error:  # models may be anybody's
            self._problem = reason_of(error)

    def evaluate(self) -> None:
        """Bring what all processes have kept to the first one."""
        gathered = comm.gather((self._found, self._problem))
        self._found = {number: found for part, _ in gathered for number, found in part.items()}
        self._problem = next((problem for _, problem in gathered if problem), "")

    def pictures(self) -> list[tuple[str, np.ndarray]]:
        """A picture of each image, RGB, uint8 [H, W, 3], and its name; in the first process."""
        pictures = []
        try:
            for place, (number, record) in enumerate(self._records.items(), start=1):
                if number in self._found:
                    name = f"samples/{place}_{Path(record['file_name']).stem}"
                    picture = self._draw(self._found[number], record)
                    pictures.append((name, np.asarray(picture)))
        except Exception as error:
            self._problem = reason_of(error)
        if self._problem:
            logger.warning("Sample predictions cannot be drawn (%s).", self._problem)
        return pictures

    def _keep(self, output: dict, number: Hashable) -> Any:
        """What of a model's output for an image is to be drawn; can be sent to other processes."""
        raise NotImplementedError

    def _draw(self, found: Any, record: dict) -> Image.Image:
        """The picture of what `_keep` gave."""
        raise NotImplementedError


class ObjectSamples(PredictionSamples):
    """Those of a detector: objects of some confidence, beside the annotated ones."""

    def _keep(self, output: dict, number: Hashable) -> list[dict]:
        instances = output["instances"].to("cpu")
        return instances_to_coco_json(instances[instances.scores >= _THRESHOLD], number)

    def _draw(self, found: list[dict], record: dict) -> Image.Image:
        names = self._class_names
        image = read_record_image(record)
        truth = true_objects(record)
        predicted = predicted_objects(found, {c: c for c in range(len(names))})
        panels = [
            Panel(f"ground truth ({len(truth)})", draw_tile(image, truth, names, _TILE)),
            Panel(
                f"predicted, score {_THRESHOLD:g} or more ({len(predicted)})",
                draw_tile(image, predicted, names, _TILE),
            ),
        ]
        return compose(panels, heading=_heading(record))


class SegmentationSamples(PredictionSamples):
    """Those of a semantic segmenter: the class of every pixel, beside the label image."""

    def _keep(self, output: dict, number: Hashable) -> np.ndarray:
        labels = predicted_labels(output)
        step = max(max(labels.shape) // _TILE, 1)  # more pixels would not be seen
        return labels[::step, ::step].cpu().numpy().astype(np.int16)

    def _draw(self, found: np.ndarray, record: dict) -> Image.Image:
        image = read_record_image(record)
        form = LabelFormat.of_record(record)
        truth = read_label(record["sem_seg_file_name"], form).astype(np.int32)
        truth[truth == form.ignore_value] = _NO_CLASS
        truth, found = (_nearest(labels, image.shape[:2]) for labels in (truth, found))
        counted = truth != _NO_CLASS
        title = "predicted"
        if counted.any():
            title += f", {100 * (truth == found)[counted].mean():.1f} % of the pixels right"
        scale = _TILE / max(image.shape[:2])
        panels = [
            Panel(text, Image.fromarray(draw_segments(image, labels, scale=scale)))
            for text, labels in (("ground truth", truth), (title, found))
        ]
        return compose(panels, heading=_heading(record), **self._legend(truth, found))

    def _legend(self, *maps: np.ndarray) -> dict[str, Any]:
        """The classes of the pictures, those of most pixels first."""
        values, counts = np.unique(np.concatenate([m.ravel() for m in maps]), return_counts=True)
        classes = [int(v) for v in values[np.argsort(-counts, kind="stable")] if v != _NO_CLASS]
        names = self._class_names
        legend = [
            (names[c] if c < len(names) else str(c), segment_color(c)) for c in classes[:_LEGEND]
        ]
        if _NO_CLASS in values:
            legend.append(("ignored", HATCHED))
        more = len(classes) - _LEGEND
        return {"legend": legend, "remarks": [f"and {more} more classes"] if more > 0 else []}


def make_samples(cfg, count: int) -> PredictionSamples | None:
    """Choose images of cfg.dataloader.test to draw predictions on, spread evenly over it.

    Args:
        cfg: the config.
        count: how many.

    Returns:
        None where there is no data set of objects or label images there, or `count` is 0.
    """
    names = dataset_names(cfg, "test") if count else []
    if not names:
        return None
    records = build(cfg, "dataloader.test.dataset")
    metadata = MetadataCatalog.get(names[0])
    for kind, truth, samples in (
        ("thing_classes", "annotations", ObjectSamples),
        ("stuff_classes", "sem_seg_file_name", SegmentationSamples),
    ):
        classes = metadata.get(kind)
        if classes and all(truth in record for record in records):
            return samples(spread(records, count), classes) if records else None
    logger.info("No sample predictions are drawn: the test set has neither objects nor labels.")
    return None


def _identity(record: dict) -> Hashable:
    """What a record and the model's input that is made of it have in common."""
    return record["image_id"] if "image_id" in record else record["file_name"]


def _heading(record: dict) -> str:
    name = os.path.basename(record["file_name"])
    return f"{name} (image {record['image_id']})" if "image_id" in record else name


def _nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels [h, w] at a size, each pixel that of the nearest one."""
    if labels.shape == size:
        return labels
    return np.asarray(Image.fromarray(labels.astype(np.int32)).resize(size[::-1], Image.NEAREST))
