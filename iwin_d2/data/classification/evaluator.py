"""Evaluation of image and video classifiers."""

import csv
import json
import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from ...d2.evaluation import DatasetEvaluator
from ...d2.utils import comm
from ...errors import DataError
from ...files import atomic_write
from ..confusion_picture import ConfusionCaptions, draw_confusion
from .metrics import ClassificationMetrics

__all__ = ["CAPTIONS", "ClassificationEvaluator"]

logger = logging.getLogger(__name__)

_BEST = 5

CAPTIONS = ConfusionCaptions(
    unit="items",
    score_name="right",
    score=lambda confusion: _share(np.diag(confusion), confusion.sum(1)),
    rank_name="confusions",
    rank=lambda confusion: confusion.sum(0) + confusion.sum(1) - 2 * np.diag(confusion),
)
_WORDS = {"top1": "top-1", "top5": "top-5", "mean_class_accuracy": "mean class accuracy"}


class ClassificationEvaluator(DatasetEvaluator):
    """Top-1, top-5 and mean class accuracy, in percent; files that say more.

    Results are the same for any number of processes and any size of batches: what was said of each
    item is gathered, put in the items' order and counted once.

    Into `output_dir` it writes predictions.csv (a line for each image or video: file, class,
    prediction, its score, the five best), per_class.csv, confusion.csv, confusion.png and
    results.json; confusions of up to 4,096 classes.

    Of equal scores, that of the lower class number counts as the higher one.
    """

    def __init__(
        self, class_names: Sequence[str], output_dir: str | None = None, distributed: bool = True
    ):
        """Prepare to evaluate.

        Args:
            class_names: by class number.
            output_dir: where to write; None for nowhere.
            distributed: whether to gather from all processes.
        """
        self._class_names = [str(name) for name in class_names]
        self._output_dir = output_dir
        self._distributed = distributed
        self.reset()

    def reset(self) -> None:
        self._files: list[str] = []
        self._labels: list[int] = []
        self._best: list[list[int]] = []
        self._scores: list[list[float]] = []

    def check_classes(self, count: int) -> None:
        """Check that a model's number of classes is that of the class names.

        Raises:
            DataError: it is not.
        """
        if count != len(self._class_names):
            raise DataError(
                f"The model has {count} classes, the test set {len(self._class_names)}: give the "
                "model the data set's number, or the data set's class names."
            )

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take a batch.

        Args:
            inputs: of each item "label", "file_name" and, where files are named more than once,
                "image_id".
            outputs: of each "scores", Tensor[C].

        Raises:
            DataError: a label is none of the classes, or the model has another number of them.
            FloatingPointError: a score is not finite.
        """
        scores = torch.stack([output["scores"] for output in outputs]).float()
        count = len(self._class_names)
        self.check_classes(scores.shape[1])
        if not scores.isfinite().all():
            row = int((~scores.isfinite()).any(1).nonzero()[0])
            raise FloatingPointError(f"in the scores of {inputs[row]['file_name']}")
        # Stable, so that equal scores do not depend on the device or the batch.
        best = scores.sort(dim=1, descending=True, stable=True)
        parts = (part[:, :_BEST].tolist() for part in (best.indices, best.values))
        for item, indices, values in zip(inputs, *parts):
            label = int(item["label"])
            if not 0 <= label < count:
                raise DataError(
                    f"{item['file_name']} has the label {label}, but there are {count} classes, "
                    f"0 to {count - 1}: correct the list."
                )
            self._files.append(str(item["file_name"]))
            self._labels.append(label)
            self._best.append(indices)
            self._scores.append(values)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Return {"classification": {"top1", "top5", "mean_class_accuracy"}} in percent.

        Top-5 is left out where there are five classes or fewer. None in processes other than the
        first.

        Raises:
            DataError: there was nothing to evaluate.
        """
        collected = [self._files, self._labels, self._best, self._scores]
        if self._distributed and comm.get_world_size() > 1:
            parts = comm.gather(collected, dst=0)
            if not comm.is_main_process():
                return None
            collected = [[x for part in parts for x in part[field]] for field in range(4)]
        files, labels, best, scores = collected
        if not files:
            raise DataError("The test set is empty: there is nothing to evaluate.")
        order = sorted(range(len(files)), key=lambda i: (files[i], labels[i], best[i]))
        labels, best = np.array(labels), np.array(best)
        metrics = ClassificationMetrics.of(labels, best, len(self._class_names))
        results = {"top1": metrics.top1, "top5": metrics.top5}
        if len(self._class_names) <= _BEST:
            del results["top5"]
        results["mean_class_accuracy"] = metrics.mean_class_accuracy
        results = {name: 100 * value for name, value in results.items()}
        logger.info(
            "%d items: %s", len(files), ", ".join(f"{k} {v:.2f} %" for k, v in results.items())
        )
        if self._output_dir:
            os.makedirs(self._output_dir, exist_ok=True)
            self._write_predictions(order, files, labels, best, scores)
            self._write_summary(metrics, results, len(files))
        return {"classification": results}

    def _write_predictions(self, order, files, labels, best, scores) -> None:
        names = self._class_names
        top = [f"top{rank + 1}" for rank in range(best.shape[1])]
        with self._csv("predictions.csv") as rows:
            rows.writerow(["file", "class", "predicted", "score", "right", *top])
            for i in order:
                predicted = [names[index] for index in best[i]]
                right = int(labels[i] == best[i][0])
                line = [files[i], names[labels[i]], predicted[0], f"{scores[i][0]:.6f}", right]
                rows.writerow([*line, *predicted])

    def _write_summary(self, metrics, results: dict[str, float], count: int) -> None:
        names, confusion = self._class_names, metrics.confusion
        with self._csv("per_class.csv") as rows:
            rows.writerow(["number", "class", "items", "accuracy"])
            for number, (name, accuracy) in enumerate(zip(names, metrics.class_accuracy)):
                share = "" if math.isnan(accuracy) else f"{100 * accuracy:.3f}"
                rows.writerow([number, name, metrics.items[number], share])
        if confusion is not None:
            with self._csv("confusion.csv") as rows:
                rows.writerow(["truth \\ predicted", *names])
                rows.writerows([name, *row] for name, row in zip(names, confusion.tolist()))
            values = ", ".join(f"{_WORDS[key]} {value:.2f} %" for key, value in results.items())
            picture = draw_confusion(confusion, names, CAPTIONS, f"{count:,} items: {values}")
            with atomic_write(os.path.join(self._output_dir, "confusion.png")) as file:
                picture.save(file, format="png")
        with atomic_write(os.path.join(self._output_dir, "results.json"), "w") as file:
            json.dump({"items": count, "classification": results}, file, indent=1)

    @contextmanager
    def _csv(self, name: str) -> Iterator:
        with atomic_write(os.path.join(self._output_dir, name), "w") as file:
            yield csv.writer(file, lineterminator="\n")


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), math.nan), where=whole > 0)
