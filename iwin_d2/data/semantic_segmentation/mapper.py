"""From a record of a data set of semantic segmentation to the model's input."""

import logging
from collections.abc import Sequence

import numpy as np
import torch

from ...d2.data.detection_utils import check_image_size, read_image
from ...d2.data.transforms import AugInput, Augmentation, AugmentationList, Transform
from ...errors import ConfigError, DataError, UserError
from ..mapper import depth_problem, preparation_error
from .fused import fuse
from .headers import describe_problem
from .label_format import IGNORE_VALUE
from .labels import read_record_label

__all__ = ["SemSegMapper"]

_BUSY = ("annotations", "problem")  # keys of records that the model has no use for


class SemSegMapper:
    """Read the image of a record, augment it together with its labels, and make tensors.

    The result is the record with `image`, a tensor [C, H, W] of uint8, and, in training, `sem_seg`,
    an int64 tensor [H, W] of class numbers and `ignore_value`. What the values of label files mean
    is read from the record (`LabelFormat`).

    Args:
        is_train: whether labels are read; augmentations apply in any case.
        augmentations: of image and labels.
        image_format: "RGB", "BGR" or another that Detectron2's `read_image` knows.
        ignore_value: of ignored pixels in `sem_seg`, whatever the files have.
    """

    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[Augmentation | Transform],
        image_format: str = "RGB",
        ignore_value: int = IGNORE_VALUE,
    ):
        self.is_train = is_train
        self.augmentations = AugmentationList(fuse(augmentations))
        self.image_format = image_format
        self.ignore_value = ignore_value
        mode = "training" if is_train else "inference"
        logging.getLogger(__name__).info("Augmentations in %s: %s", mode, self.augmentations)

    def __call__(self, dataset_dict: dict) -> dict:
        """Map a record to the model's input; the record itself is not changed.

        Raises:
            DataError: image or labels are missing, damaged, of different sizes or not what they
                should be: RGB or palette labels, labels out of range, ...
            ConfigError: `ignore_value` is the number of a class.
            AugmentationError: image and labels are whole, but something in their preparation fails.
        """
        identity = f"image {dataset_dict.get('image_id')}"
        if "problem" in dataset_dict:
            raise DataError(f"{identity}: {describe_problem(dataset_dict)}.")
        problem = depth_problem(dataset_dict["file_name"])
        if problem:
            raise DataError(f"{identity}: {problem}.")
        try:
            return self._map(dict(dataset_dict))
        except UserError as error:
            if isinstance(error, DataError):
                raise type(error)(f"{identity}: {error}") from error
            raise
        except Exception as error:
            raise preparation_error(identity, dataset_dict, error, self.is_train) from error

    def _map(self, record: dict) -> dict:
        image = read_image(record["file_name"], format=self.image_format)
        labels = self._read_labels(record, image.shape[:2]) if self.is_train else None
        check_image_size(record, image)
        if labels is not None and labels.dtype != np.uint8:
            labels = labels.astype(np.float32)  # Detectron2's transforms refuse other integers
        augmented = AugInput(image, sem_seg=labels)
        self.augmentations(augmented)
        for key in _BUSY:
            record.pop(key, None)
        # One copy: what came from a file is read-only, and transforms leave views.
        channels_first = np.atleast_3d(augmented.image).transpose(2, 0, 1)
        record["image"] = torch.from_numpy(np.array(channels_first, order="C"))
        if augmented.sem_seg is not None:
            record["sem_seg"] = torch.from_numpy(augmented.sem_seg.astype(np.int64))
        return record

    def _read_labels(self, record: dict, size: tuple[int, int]) -> np.ndarray:
        """The labels of a record, checked against the (height, width) of its image."""
        if record.get("num_classes", 0) > self.ignore_value >= 0:
            raise ConfigError(
                f"ignore_value={self.ignore_value} of the mapper is the number of a class (0 to "
                f"{record['num_classes'] - 1}): set it, and the head's, to a number beyond them."
            )
        labels = read_record_label(record, self.ignore_value)
        if labels.shape != size:
            raise DataError(
                f"{record['sem_seg_file_name']} is {labels.shape[1]}x{labels.shape[0]} pixels, but "
                f"its image {record['file_name']} {size[1]}x{size[0]}: give both the same size."
            )
        return labels
