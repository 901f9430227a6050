"""Evaluation of semantic segmentation."""

import dataclasses
import logging
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from tabulate import tabulate

from ...d2.data import DatasetCatalog, MetadataCatalog
from ...d2.evaluation import DatasetEvaluator
from ...d2.utils import comm
from ...errors import ConfigError, DataError
from ...modeling.segmentation_inference import predicted_labels
from .evaluation_files import write_label, write_results
from .label_format import LabelFormat
from .labels import read_label
from .metrics import SegmentationMetrics, count_confusions

__all__ = ["SegmentationEvaluator"]

logger = logging.getLogger(__name__)


class SegmentationEvaluator(DatasetEvaluator):
    """Compares predicted classes with label images, pixel by pixel, at the label images' size.

    Results are those of Detectron2's SemSegEvaluator, by its names, in percent: mIoU, fwIoU (IoU
    weighted by the truth's pixels), mACC and pACC (accuracy: mean over classes, and of all pixels),
    IoU-<class> and ACC-<class>. Pixels of the ignore value count nowhere. NaN is what cannot be
    measured, and left out of means: see `SegmentationMetrics`.

    Only counts of pixels are kept, not predictions, so memory does not grow with the data set.
    Several processes add their counts: the results are exactly those of one.

    Into output_dir are written

    - results.json: the results, null for NaN, and how many images and pixels were evaluated;
    - per_class.csv: a line for each class, with IoU and accuracy in percent and pixels;
    - confusion.csv, the confusion matrix in pixels, a row for each class of the truth, and
      confusion.png, a picture of it;
    - with save_labels, labels/<image id>.png: the predicted classes, as the label files of the data
      set have them: its `reduce_zero_label` and `label_values` are undone.

    Attributes:
        labels_suffice: tells whoever evaluates that class numbers are enough, without scores.
    """

    labels_suffice = True

    def __init__(
        self,
        dataset_name: str,
        *,
        output_dir: str | None = None,
        save_labels: bool = False,
        distributed: bool = True,
    ):
        """Prepare to evaluate.

        Args:
            dataset_name: of a registered data set with `stuff_classes`.
            output_dir: folder to write into; None writes nothing.
            save_labels: whether to write the predictions as label images, too.
            distributed: whether to add up the counts of all processes; else each one returns its
                own results.

        Raises:
            ConfigError: save_labels without output_dir, or not the name of one data set.
            DataError: the data set does not say its classes.
        """
        if not isinstance(dataset_name, str):
            raise ConfigError(
                f"SegmentationEvaluator evaluates one data set, not {dataset_name}: give the name "
                "of one."
            )
        if save_labels and not output_dir:
            raise ConfigError("save_labels=True wants a folder to save into: set output_dir.")
        self._name, self._output_dir = dataset_name, output_dir
        self._save_labels, self._distributed = save_labels, distributed
        metadata = MetadataCatalog.get(dataset_name)
        if not metadata.get("stuff_classes") and dataset_name in DatasetCatalog:
            DatasetCatalog.get(dataset_name)  # many sets fill in their metadata when loaded
        self._classes = [str(name) for name in metadata.get("stuff_classes") or ()]
        if not self._classes:
            raise DataError(
                f"Data set {dataset_name!r} does not say its classes: set stuff_classes in its "
                "metadata, or register it with register_folder."
            )
        self._ignore_value = metadata.get("ignore_label", 255)
        self._records: dict[str, dict] | None = None  # by file name, where they are needed
        self.reset()

    def reset(self) -> None:
        classes = len(self._classes)
        self._confusion = np.zeros((classes, classes), dtype=np.int64)
        self._images = self._ignored = 0

    def process(self, inputs: list, outputs: list) -> None:
        """Take one batch: the loader's dicts, and the model's with sem_seg or sem_seg_labels.

        Raises:
            DataError: a label image cannot be read, or has another size than the prediction.
            ConfigError: the model predicts classes that the data set does not have.
        """
        classes = len(self._classes)
        for item, output in zip(inputs, outputs):
            predicted = predicted_labels(output).cpu().numpy()
            record = self._with_label(item)
            form = self._format(record)
            truth = read_label(record["sem_seg_file_name"], form, ignored=classes)
            self._check(predicted, truth, record)
            counts = count_confusions(truth, predicted, classes, ignore_value=classes)
            self._confusion += counts
            self._images += 1
            self._ignored += truth.size - int(counts.sum())
            if self._save_labels:
                write_label(predicted, record, form, os.path.join(self._output_dir, "labels"))

    def evaluate(self) -> dict:
        """Return {"sem_seg": {metric: percent}}.

        NaN where nothing can be measured; {} in other processes than the first and where no image
        was processed.
        """
        confusion, images, ignored = self._confusion, self._images, self._ignored
        if self._distributed:
            parts = comm.gather((confusion, images, ignored))
            if not comm.is_main_process():
                return {}
            confusion, images, ignored = (sum(column) for column in zip(*parts))
        if not images:
            logger.warning("No image was evaluated, so there are no results.")
            return {}
        if not confusion.any():
            logger.warning(
                "All pixels of the %d label images of data set %r are ignored, so there is nothing "
                "to measure (nan): check its ignore value, and reduce_zero_label.",
                *(images, self._name),
            )
        metrics = SegmentationMetrics.of(confusion)
        results = metrics.in_percent(self._classes)
        self._log(metrics, results)
        if self._output_dir:
            counts = {"images": images, "pixels": int(confusion.sum()), "ignored_pixels": ignored}
            write_results(
                self._output_dir, self._name, self._classes, confusion, metrics, results, counts
            )
        return {"sem_seg": results}

    def _with_label(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        """A loader's dict; the data set's own record where a mapper has left the label out."""
        if "sem_seg_file_name" in item:
            return item
        if self._records is None:
            records = DatasetCatalog.get(self._name)
            self._records = {record["file_name"]: record for record in records}
        record = self._records.get(item["file_name"], {})
        if "sem_seg_file_name" not in record:
            raise DataError(
                f"Image {item['file_name']} has no label image in data set {self._name!r}, so it "
                "cannot be evaluated: register it with sem_seg_file_name."
            )
        return record

    def _format(self, record: Mapping[str, Any]) -> LabelFormat:
        """What the record's label file means: as the record tells, else as the metadata do."""
        form = LabelFormat.of_record({"ignore_value": self._ignore_value, **record})
        if form.num_classes is None:
            form = dataclasses.replace(form, num_classes=len(self._classes))
        return form

    def _check(self, predicted: np.ndarray, truth: np.ndarray, record: Mapping) -> None:
        if predicted.shape != truth.shape:
            sizes = [f"{a.shape[1]} x {a.shape[0]}" for a in (truth, predicted)]
            raise DataError(
                f"{record['sem_seg_file_name']} has {sizes[0]} pixels, but its image "
                f"{record['file_name']} was predicted at {sizes[1]}: an image and its label image "
                "have to be of one size."
            )
        if predicted.size and not 0 <= predicted.min() <= predicted.max() < len(self._classes):
            raise ConfigError(
                f"The model predicts class {predicted.max()}, but data set {self._name!r} has "
                f"{len(self._classes)} classes: set model.sem_seg_head.num_classes to that."
            )

    def _log(self, metrics: SegmentationMetrics, results: dict[str, float]) -> None:
        main = {name: value for name, value in results.items() if "-" not in name}
        shown = {"tablefmt": "pipe", "floatfmt": ".2f"}
        logger.info("Results of %s:\n%s", self._name, tabulate([main], headers="keys", **shown))
        cells = list(zip(self._classes, 100 * metrics.iou, 100 * metrics.accuracy))
        rows = [sum(cells[i : i + 3], ()) for i in range(0, len(cells), 3)]
        head = ["class", "IoU", "ACC"] * min(3, len(cells))
        logger.info("By class:\n%s", tabulate(rows, headers=head, **shown))
