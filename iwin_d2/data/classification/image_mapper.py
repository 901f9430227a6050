"""From the record of an image to a classifier's input."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from ...d2.data import detection_utils
from ...errors import AugmentationError, DataError, UserError
from ..image_check import diagnose_image
from .shards import read_member

__all__ = ["ImageMapper"]


class ImageMapper:
    """Reads an image, as a viewer would show it, and augments it.

    JPEG, PNG, WebP and GIF files are decoded by torchvision, others, and what it refuses (CMYK, 16
    bits), by Pillow.
    """

    def __init__(self, augmentations: Sequence[Callable[[Tensor], Tensor]] = ()):
        """Prepare to map.

        Args:
            augmentations: called one after the other with uint8 Tensor[3, H, W], such as those of
                torchvision.transforms.v2.
        """
        self.augmentations = list(augmentations)

    def __call__(self, record: dict) -> dict:
        """Map a record to a copy of it with "image", uint8 Tensor[3, H, W], RGB.

        Raises:
            DataError: the image is missing, damaged or no image.
            AugmentationError: the image is whole, but something in its preparation fails.
        """
        image = self._read(record)
        try:
            for augmentation in self.augmentations:
                image = augmentation(image)
        except UserError:
            raise
        except Exception as error:  # augmentations can be anybody's
            raise AugmentationError(
                f"{record['file_name']} cannot be prepared for the model ({type(error).__name__}: "
                f"{error}): check the augmentations of the mapper."
            ) from error
        return {**record, "image": image}

    def _read(self, record: dict) -> Tensor:
        name = record["file_name"]
        try:
            data = _read_bytes(record)
            image = decode_image(data, ImageReadMode.RGB, apply_exif_orientation=True)
            image = image[0] if image.dim() == 4 else image  # the first frame of a GIF
            return v2.functional.to_dtype(image, torch.uint8, scale=True)
        except RuntimeError:
            if "shard" in record:
                raise DataError(f"{name} is damaged, or no image: leave it out.") from None
        try:
            return torch.from_numpy(
                np.array(detection_utils.read_image(name, format="RGB").transpose(2, 0, 1))
            )
        except Exception as error:
            problem = diagnose_image(name, None, None) or f"{name} cannot be read ({error})"
            raise DataError(f"{problem}.") from error


def _read_bytes(record: dict) -> Tensor:
    """The encoded image, uint8 Tensor[N]."""
    if "shard" in record:
        data = read_member(record)
    else:
        try:
            with open(record["file_name"], "rb") as file:
                data = file.read()
        except OSError as error:
            raise DataError(
                f"{record['file_name']} cannot be read ({error.strerror}): it should be an image."
            ) from error
    if not data:
        raise DataError(f"{record['file_name']} is empty: leave it out, or replace it.")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
