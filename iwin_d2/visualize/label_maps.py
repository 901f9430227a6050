"""Label maps of a data set's images: the truth, what a model predicts, what evaluation saved."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..data.semantic_segmentation import LabelFormat, read_label, read_record_label
from ..data.semantic_segmentation.evaluation_files import label_file_name
from ..engine.pipeline import Progress
from ..engine.predictor import Predictor
from ..errors import DataError

__all__ = [
    "IGNORED",
    "are_labelled",
    "predict_labels",
    "saved_labels",
    "stuff_classes",
    "true_labels",
]

IGNORED = -1  # in the truth: pixels that have no class

Predicted = Iterator[tuple[dict, np.ndarray]]


def are_labelled(records: Sequence[dict]) -> bool:
    """Whether a data set is one of semantic segmentation, and not of objects."""
    return bool(records) and all(
        "sem_seg_file_name" in record and "annotations" not in record for record in records
    )


def stuff_classes(metadata, where: str) -> list[str]:
    """The class names of a data set of semantic segmentation.

    Args:
        metadata: of the data set.
        where: of what it is the data set, for the message.

    Raises:
        DataError: it does not say them.
    """
    names = metadata.get("stuff_classes")
    if not names:
        raise DataError(
            f"The data set of {where} does not say its classes: set stuff_classes in its metadata, "
            "or register it with register_folder."
        )
    return [str(name) for name in names]


def true_labels(record: dict) -> np.ndarray:
    """The label image of a record: class numbers and `IGNORED`, int32 [H, W].

    Raises:
        DataError: it cannot be read, or does not hold labels of the data set.
    """
    return read_record_label(record, ignored=IGNORED).astype(np.int32)


def predict_labels(
    predictor: Predictor, records: Sequence[dict], *, batch_size: int, workers: int
) -> Predicted:
    """Predict the images of a data set, one after the other.

    Args:
        predictor: a semantic segmenter of the data set's classes.
        records: with file_name.
        batch_size: the most images in one pass of the model.
        workers: threads that read images.

    Yields:
        a record and its class numbers, int32 [H, W].

    Raises:
        ConfigError: the model is no semantic segmenter.
        DataError: an image cannot be read.
    """
    progress = Progress("images", len(records))
    paths = [record["file_name"] for record in records]
    outputs = predictor.stream(paths, batch_size, workers)
    for record, output in zip(records, outputs):
        yield record, predictor.labels(output).numpy()
        progress.step()


def saved_labels(folder: Path, records: Sequence[dict], num_classes: int) -> Predicted:
    """Read the label images that evaluation with save_labels=True has written.

    Args:
        folder: that of the label images, or the one with labels/ in it.
        records: of the data set that was evaluated.
        num_classes: of it.

    Yields:
        a record and its class numbers, int32 [H, W].

    Raises:
        DataError: some are missing, before the first is read; or one cannot be read.
    """
    folder = folder / "labels" if (folder / "labels").is_dir() else folder
    paths = [folder / label_file_name(record) for record in records]
    missing = [index for index, path in enumerate(paths) if not path.is_file()]
    if missing:
        path, record = paths[missing[0]], records[missing[0]]
        raise DataError(
            f"There is no {path} for image {record['file_name']} (and for {len(missing) - 1} other "
            f"images of {len(records)}): give the folder labels that an evaluation on this data "
            "set has written with dataloader.evaluator.save_labels=True."
        )
    progress = Progress("images", len(records))
    for record, path in zip(records, paths):
        form = LabelFormat.of_record({**record, "num_classes": num_classes})
        labels = read_label(path, form, ignored=IGNORED).astype(np.int32)
        if (labels == IGNORED).any():
            raise DataError(
                f"{path} has pixels that are ignored in this data set ({form.describe()}), which "
                "nothing predicts: give label images that an evaluation has written."
            )
        yield record, labels
        progress.step()
