"""Images in the forms that people have them in, as RGB arrays."""

from os import PathLike

import numpy as np
from PIL import Image, ImageOps

from ..d2.data.detection_utils import read_image
from ..errors import DataError, UserError

__all__ = ["image_to_rgb", "read_rgb"]


def read_rgb(path: str | PathLike) -> np.ndarray:
    """Read an image file, turned as its EXIF orientation says: uint8 [H, W, 3].

    Raises:
        DataError: it is no image that can be read.
    """
    try:
        return np.asarray(read_image(str(path), format="RGB"))
    except UserError:
        raise
    except Exception as error:  # Pillow raises all kinds of them on damaged files
        reason = str(error).strip() or type(error).__name__
        raise DataError(f"{path} cannot be read as an image ({reason}).") from error


def image_to_rgb(image: Image.Image | np.ndarray, array_format: str) -> np.ndarray:
    """Make an RGB array, uint8 [H, W, 3], of a PIL image or an array.

    Args:
        image: a PIL image, which is turned as its EXIF orientation says; or an array uint8 [H, W],
            [H, W, 1], [H, W, 3] or [H, W, 4], whose fourth channel is left out.
        array_format: the order of an array's channels, "RGB" or "BGR".

    Raises:
        DataError: it is something else; says what to do.
    """
    if isinstance(image, Image.Image):
        return _pil_to_rgb(image)
    if not isinstance(image, np.ndarray):
        raise DataError(
            f"A {type(image).__module__}.{type(image).__name__} is no image: give a path, a PIL "
            "image, or a NumPy array uint8 [H, W, 3]."
        )
    if image.dtype != np.uint8:
        raise DataError(
            f"The image is an array of {image.dtype}: give uint8, 0 to 255 (such as "
            "(255 * image).round().astype('uint8') for values from 0 to 1)."
        )
    channels = image.shape[2] if image.ndim == 3 else 1 if image.ndim == 2 else None
    if channels not in (1, 3, 4) or 0 in image.shape:
        raise DataError(
            f"The image is an array of shape {list(image.shape)}: give [height, width, 3] with at "
            "least one pixel (one image at a time; channels last)."
        )
    if channels == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    image = image[:, :, :3]
    return image if array_format == "RGB" else image[:, :, ::-1]


def _pil_to_rgb(image: Image.Image) -> np.ndarray:
    """As `read_rgb` for the file that the image was read from."""
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith(("I", "F")):
            raise DataError(
                f"The PIL image has 16 or 32 bits a channel (mode {image.mode}): convert it to 8 "
                "bits."
            )
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        return np.asarray(image.convert("RGB"))
    except UserError:
        raise
    except Exception as error:  # Pillow decodes late, and raises all kinds of them
        name = getattr(image, "filename", "") or "The PIL image"
        raise DataError(f"{name} cannot be read ({error}).") from error
