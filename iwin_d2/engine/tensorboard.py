"""What a training shows in TensorBoard: losses, results, learning rate and sample predictions."""

import importlib.util
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..d2.data import MetadataCatalog
from ..d2.evaluation import DatasetEvaluator, instances_to_coco_json
from ..d2.utils import comm
from ..d2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter
from .build import build, reason_of
from .model_check import dataset_names
from .objects import draw_tile, predicted_objects, read_record_image, spread, true_objects
from .panels import Panel, compose

__all__ = ["PredictionSamples", "TensorBoardWriter", "make_samples", "make_writers"]

logger = logging.getLogger(__name__)

_THRESHOLD = 0.5  # of the scores of what is drawn
_TILE = 480  # pixels of the longer side of a drawing
_ELSEWHERE = "losses and results are in metrics.json and log.txt alone"


def make_writers(
    output_dir: str, max_iter: int, start_iter: int, tensorboard: bool
) -> tuple[list[EventWriter], "TensorBoardWriter | None"]:
    """Make the writers of a training: console, metrics.json, TensorBoard files.

    Args:
        output_dir: the folder to write into.
        max_iter: the training's.
        start_iter: that it begins with; what TensorBoard has of it and later is hidden.
        tensorboard: whether to write for TensorBoard; where it is not installed, a warning says so.

    Returns:
        all writers, and that for TensorBoard or None.
    """
    writers = [CommonMetricPrinter(max_iter), JSONWriter(os.path.join(output_dir, "metrics.json"))]
    if not tensorboard:
        return writers, None
    if importlib.util.find_spec("tensorboard") is None:
        logger.warning(
            "TensorBoard is not installed: %s (pip install tensorboard, or set "
            "train.tensorboard.enabled=False).",
            _ELSEWHERE,
        )
        return writers, None
    writer = TensorBoardWriter(output_dir, start_iter)
    return [*writers, writer], writer


class TensorBoardWriter(TensorboardXWriter):
    """The framework's writer of scalars, which also writes pictures, in the same file."""

    def __init__(self, log_dir: str, start_iter: int = 0):
        """Prepare to write; nothing is written yet.

        Args:
            log_dir: the folder.
            start_iter: of a resumed training: what an earlier part of it has written for later
                iterations is hidden. Results of an evaluation at its end, which stand under this
                iteration, are kept.
        """
        options = {"purge_step": start_iter + 1} if start_iter > 0 else {}
        super().__init__(log_dir, **options)
        self._pictures: list[tuple[str, np.ndarray, int]] = []
        self._broken = False

    def add_pictures(self, pictures: Sequence[tuple[str, np.ndarray]], iteration: int) -> None:
        """Have pictures, (name, RGB uint8 [H, W, 3]), written with the next scalars."""
        self._pictures += [(name, picture, iteration) for name, picture in pictures]

    def write(self) -> None:
        if self._broken:
            return
        try:
            super().write()
            for name, picture, iteration in self._pictures:
                self._writer.add_image(name, picture, iteration, dataformats="HWC")
        except ImportError as error:  # installed, but not whole, or of versions that do not fit
            logger.warning("TensorBoard cannot be used (%s): %s.", reason_of(error), _ELSEWHERE)
            self._broken = True
        self._pictures.clear()

    def close(self) -> None:
        if not self._broken:
            super().close()


class PredictionSamples(DatasetEvaluator):
    """Keeps the predictions on a few images while a data set is evaluated, and draws them.

    To be evaluated beside the evaluator proper, in every process. Whatever goes wrong with it is
    logged: no training is to end for a picture.
    """

    def __init__(self, records: Sequence[dict], class_names: Sequence[str]):
        """Prepare to keep predictions.

        Args:
            records: the images, in the framework's format, with annotations.
            class_names: of the data set.
        """
        self._records = {record["image_id"]: record for record in records}
        self._class_names = list(class_names)
        self._found: dict[Any, list[dict]] = {}
        self._problem = ""

    def reset(self) -> None:
        self._found, self._problem = {}, ""

    def process(self, inputs: list, outputs: list) -> None:
        try:
            for record, output in zip(inputs, outputs):
                number = record["image_id"]
                if number in self._records:
                    instances = output["instances"].to("cpu")
                    confident = instances[instances.scores >= _THRESHOLD]
                    self._found[number] = instances_to_coco_json(confident, number)
        except Exception as error:  # detectors may be anybody's
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
                    pictures.append((name, self._draw(number, record)))
        except Exception as error:
            self._problem = reason_of(error)
        if self._problem:
            logger.warning("Sample predictions cannot be drawn (%s).", self._problem)
        return pictures

    def _draw(self, number: Any, record: dict) -> np.ndarray:
        names = self._class_names
        image = read_record_image(record)
        truth = true_objects(record)
        predicted = predicted_objects(self._found[number], {c: c for c in range(len(names))})
        panels = [
            Panel(f"ground truth ({len(truth)})", draw_tile(image, truth, names, _TILE)),
            Panel(
                f"predicted, score {_THRESHOLD:g} or more ({len(predicted)})",
                draw_tile(image, predicted, names, _TILE),
            ),
        ]
        heading = f"{os.path.basename(record['file_name'])} (image {number})"
        return np.asarray(compose(panels, heading=heading))


def make_samples(cfg, count: int) -> PredictionSamples | None:
    """Choose images of cfg.dataloader.test to draw predictions on, spread evenly over it.

    Args:
        cfg: the config.
        count: how many.

    Returns:
        None where there is no data set of objects there, or `count` is 0.
    """
    names = dataset_names(cfg, "test") if count else []
    if not names:
        return None
    records = build(cfg, "dataloader.test.dataset")
    classes = MetadataCatalog.get(names[0]).get("thing_classes")
    if not classes or not all("annotations" in record for record in records):
        logger.info("No sample predictions are drawn: the test set is not one of objects.")
        return None
    return PredictionSamples(spread(records, count), classes) if records else None
