"""Scale jitter, the crop that no class fills, and padding: the published training augmentation.

Source: the published segmentation configs, which follow MMSegmentation's pipeline for ADE20K.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ...d2.data.transforms import (
    Augmentation,
    CropTransform,
    NoOpTransform,
    ResizeTransform,
    Transform,
)
from .label_format import IGNORE_VALUE

__all__ = [
    "PIXEL_MEAN",
    "LabelResizeTransform",
    "PadTo",
    "PadToTransform",
    "RandomCropByLabels",
    "ResizeByRatio",
]

PIXEL_MEAN = (123.675, 116.28, 103.53)  # of ImageNet, RGB


class ResizeByRatio(Augmentation):
    """Resize to fit into a size times a random ratio, keeping the aspect ratio.

    Args:
        size: pixels; the image's longer side fits into the longer one, its shorter side into the
            shorter one, and one of them exactly.
        ratio_range: (least, greatest) ratio, drawn uniformly.
        interp: of Pillow's methods, for the image; labels take the nearest pixel.

    Raises:
        ValueError: the ratios or sizes are not above 0, or not in order.
    """

    def __init__(
        self,
        size: tuple[int, int] = (2048, 512),
        ratio_range: tuple[float, float] = (0.5, 2.0),
        interp: int = Image.BILINEAR,
    ):
        super().__init__()
        size, ratio_range = tuple(size), tuple(ratio_range)
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"size={size} must be two numbers of pixels above 0")
        if len(ratio_range) != 2 or not 0 < ratio_range[0] <= ratio_range[1]:
            raise ValueError(f"ratio_range={ratio_range} must be two ratios above 0, least first")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw a ratio; return the resize for an image [H, W, ...]."""
        height, width = image.shape[:2]
        ratio = np.random.uniform(*self.ratio_range)
        new_height, new_width = self.fitted(height, width, ratio)
        return LabelResizeTransform(height, width, new_height, new_width, self.interp)

    def fitted(self, height: int, width: int, ratio: float) -> tuple[int, int]:
        """The new (height, width) for a ratio; at least one pixel each."""
        shorter, longer = sorted(int(side * ratio) for side in self.size)
        scale = min(longer / max(height, width), shorter / min(height, width))
        return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


class LabelResizeTransform(ResizeTransform):
    """A `ResizeTransform` that also takes the nearest pixel of labels wider than a byte.

    Detectron2's own refuses integers there, and takes other pixels of floats.
    """

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Resize labels [H, W] of uint8, int32 or float32."""
        picture = Image.fromarray(np.ascontiguousarray(segmentation))
        return np.asarray(picture.resize((self.new_w, self.new_h), Image.NEAREST))


class RandomCropByLabels(Augmentation):
    """Cut out a random rectangle in which no class holds more than a share of the pixels.

    Ignored pixels do not count. After ten tries the last rectangle is taken as it is. Images that
    are smaller in a direction are not cut in that direction.

    Args:
        crop_size: (height, width) in pixels.
        max_share: of the most frequent class; 1 takes the first rectangle.
        ignore_value: of ignored pixels.

    Raises:
        ValueError: a size below 1, or a share that is not in (0, 1].
    """

    def __init__(
        self,
        crop_size: tuple[int, int] = (512, 512),
        max_share: float = 0.75,
        ignore_value: int = IGNORE_VALUE,
    ):
        super().__init__()
        crop_size = tuple(crop_size)
        if len(crop_size) != 2 or min(crop_size) < 1:
            raise ValueError(f"crop_size={crop_size} must be (height, width) in pixels")
        if not 0 < max_share <= 1:
            raise ValueError(f"max_share={max_share} must lie above 0, and not above 1")
        self._init(locals())

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray | None) -> Transform:
        """Draw rectangles until one fits the labels [H, W]; without labels, take the first."""
        height, width = image.shape[:2]
        crop_height, crop_width = min(self.crop_size[0], height), min(self.crop_size[1], width)
        if (crop_height, crop_width) == (height, width):
            return NoOpTransform()
        for _ in range(_TRIES):
            y0 = np.random.randint(height - crop_height + 1)
            x0 = np.random.randint(width - crop_width + 1)
            if sem_seg is None or self.max_share == 1:
                break
            if self._is_mixed(sem_seg[y0 : y0 + crop_height, x0 : x0 + crop_width]):
                break
        return CropTransform(x0, y0, crop_width, crop_height, orig_w=width, orig_h=height)

    def _is_mixed(self, labels: np.ndarray) -> bool:
        """Whether no class has too large a share; where everything is ignored, none has."""
        counts = _count(labels)
        if 0 <= self.ignore_value < len(counts):
            counts[self.ignore_value] = 0
        return bool(0 < counts.max() <= self.max_share * counts.sum())


_TRIES = 10


def _count(labels: np.ndarray) -> np.ndarray:
    """How many pixels have each number: int64, as long as the greatest number asks for."""
    if labels.dtype == np.uint8:  # several times faster than NumPy's
        return np.array(Image.fromarray(labels).histogram(), dtype=np.int64)
    return np.bincount(labels.ravel().astype(np.int64))


class PadTo(Augmentation):
    """Pad images that are smaller than a size, on the right and at the bottom.

    Args:
        size: (height, width) in pixels that the image has at least afterwards.
        pad_value: of image pixels, one number or one a channel. In the reference, images are padded
            with 0 after the mean was subtracted, so the mean is the default; for images of uint8 it
            is rounded. It must be in the order of the image's channels.
        label_value: of labels.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(
        self,
        size: tuple[int, int] = (512, 512),
        pad_value: float | Sequence[float] = PIXEL_MEAN,
        label_value: int = IGNORE_VALUE,
    ):
        super().__init__()
        size = tuple(size)
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"size={size} must be (height, width) in pixels")
        pad_value = pad_value if np.isscalar(pad_value) else tuple(pad_value)
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        """Return the padding for an image [H, W, ...]."""
        height, width = image.shape[:2]
        bottom, right = max(self.size[0] - height, 0), max(self.size[1] - width, 0)
        if not bottom and not right:
            return NoOpTransform()
        return PadToTransform(height, width, bottom, right, self.pad_value, self.label_value)


class PadToTransform(Transform):
    """Pad an image of (h, w) by rows at the bottom and columns on the right."""

    def __init__(
        self,
        h: int,
        w: int,
        bottom: int,
        right: int,
        pad_value: float | Sequence[float],
        label_value: int,
    ):
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Pad an array [H, W] or [H, W, C]."""
        value = np.asarray(self.pad_value, dtype=np.float64)
        if img.dtype.kind != "f":
            value = np.round(value)
        if img.ndim == 2 and value.ndim:
            value = value.mean()
        return self._padded(img, value)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Pad labels [H, W]."""
        return self._padded(segmentation, self.label_value)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Points [N, 2] stay where they are."""
        return coords

    def inverse(self) -> Transform:
        """The crop that takes the padding away."""
        whole = {"orig_w": self.w + self.right, "orig_h": self.h + self.bottom}
        return CropTransform(0, 0, self.w, self.h, **whole)

    def _padded(self, array: np.ndarray, value: np.ndarray | int) -> np.ndarray:
        padded = np.empty(
            (self.h + self.bottom, self.w + self.right, *array.shape[2:]), dtype=array.dtype
        )
        padded[: self.h, : self.w] = array
        padded[self.h :] = value
        padded[: self.h, self.w :] = value
        return padded
