"""The augmentations of detection and segmentation. Random numbers are NumPy's global ones."""

import sys
from collections.abc import Sequence

import numpy as np
from fvcore.transforms.transform import (
    BlendTransform,
    HFlipTransform,
    NoOpTransform,
    PadTransform,
    Transform,
    TransformList,
    VFlipTransform,
)
from PIL import Image

from .augmentation import AugInput, Augmentation, to_augmentation
from .transform import CropTransform, ResizeTransform

__all__ = [
    "FixedSizeCrop",
    "RandomApply",
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomFlip",
    "RandomSaturation",
    "Resize",
    "ResizeScale",
    "ResizeShortestEdge",
]


class RandomApply(Augmentation):
    """Do something with a probability.

    Args:
        tfm_or_aug: what to do.
        prob: how often, 0 to 1.
    """

    def __init__(self, tfm_or_aug: Transform | Augmentation, prob: float = 0.5):
        if not 0.0 <= prob <= 1.0:
            raise AssertionError(f"a probability lies between 0 and 1, got {prob}")
        self.aug = to_augmentation(tfm_or_aug)
        self.prob = prob

    def get_transform(self, *args) -> Transform:
        """Choose; the arguments are those of the inner augmentation."""
        return self.aug.get_transform(*args) if self._chosen() else NoOpTransform()

    def __call__(self, aug_input: AugInput) -> Transform:
        return self.aug(aug_input) if self._chosen() else NoOpTransform()

    def _chosen(self) -> bool:
        return self._rand_range() < self.prob


class RandomFlip(Augmentation):
    """Mirror the image, horizontally (the default) or vertically.

    Args:
        prob: how often, 0 to 1.
        horizontal, vertical: exactly one of them; for both, use two RandomFlips.
    """

    def __init__(self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False):
        if bool(horizontal) == bool(vertical):
            raise ValueError("RandomFlip takes exactly one of horizontal and vertical.")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        if self._rand_range() >= self.prob:
            return NoOpTransform()
        return HFlipTransform(width) if self.horizontal else VFlipTransform(height)


class Resize(Augmentation):
    """Resize to a fixed size.

    Args:
        shape: (height, width), or one number for both.
        interp: Pillow's method.
    """

    def __init__(self, shape: int | tuple[int, int], interp: int = Image.BILINEAR):
        shape = (shape, shape) if isinstance(shape, int) else tuple(shape)
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        return ResizeTransform(*image.shape[:2], *self.shape, self.interp)


class ResizeShortestEdge(Augmentation):
    """Resize, keeping the aspect ratio, so that the shorter side has a given length.

    Args:
        short_edge_length: the lengths: (min, max) for "range", any number of them for "choice"; one
            number for always the same.
        max_size: the longer side is never longer than this.
        sample_style: "range": uniformly from min to max; "choice": one of the list.
        interp: Pillow's method.
    """

    def __init__(
        self,
        short_edge_length: int | Sequence[int],
        max_size: int = sys.maxsize,
        sample_style: str = "range",
        interp: int = Image.BILINEAR,
    ):
        if sample_style not in ("range", "choice"):
            raise AssertionError(f"sample_style is 'range' or 'choice', got {sample_style!r}")
        if isinstance(short_edge_length, int):
            short_edge_length = (short_edge_length, short_edge_length)
        is_range = sample_style == "range"
        if is_range and len(short_edge_length) != 2:
            raise AssertionError(
                "with sample_style 'range', short_edge_length is (min, max), "
                f"got {short_edge_length}"
            )
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        if self.is_range:
            low, high = self.short_edge_length
            size = np.random.randint(low, high + 1)
        else:
            size = np.random.choice(self.short_edge_length)
        if size == 0:
            return NoOpTransform()
        new_h, new_w = self.get_output_shape(height, width, size, self.max_size)
        return ResizeTransform(height, width, new_h, new_w, self.interp)

    @staticmethod
    def get_output_shape(
        oldh: int, oldw: int, short_edge_length: int, max_size: int
    ) -> tuple[int, int]:
        """Return the new (height, width)."""
        scale = float(short_edge_length) / min(oldh, oldw)
        # The shorter side first: exactly short_edge_length, whatever the rounding of the scale.
        if oldh < oldw:
            newh, neww = float(short_edge_length), scale * oldw
        else:
            newh, neww = scale * oldh, float(short_edge_length)
        longer = max(newh, neww)
        if longer > max_size:
            newh, neww = newh * max_size / longer, neww * max_size / longer
        # Thin images must not vanish.
        return max(int(newh + 0.5), 1), max(int(neww + 0.5), 1)


class ResizeScale(Augmentation):
    """Resize, keeping the aspect ratio, to fit into a target size times a random scale.

    Args:
        min_scale, max_scale: the scale's range.
        target_height, target_width: the target size.
        interp: Pillow's method.
    """

    def __init__(
        self,
        min_scale: float,
        max_scale: float,
        target_height: int,
        target_width: int,
        interp: int = Image.BILINEAR,
    ):
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        scale = np.random.uniform(self.min_scale, self.max_scale)
        factor = min(scale * self.target_height / height, scale * self.target_width / width)
        new_h, new_w = (max(int(side), 1) for side in np.round([height * factor, width * factor]))
        return ResizeTransform(height, width, new_h, new_w, self.interp)


class RandomCrop(Augmentation):
    """Cut a rectangle out at a random place.

    Args:
        crop_type: what `crop_size` means; see there.
        crop_size: two numbers, for height and width, except for "absolute_range".
            "relative": fractions of the image's sides. "relative_range": fractions drawn between
            these and 1. "absolute": pixels; not more than the image has. "absolute_range": (min,
            max), between which height and width are drawn; not more than the image has.
    """

    def __init__(self, crop_type: str, crop_size: Sequence[float]):
        if crop_type not in ("relative", "relative_range", "absolute", "absolute_range"):
            raise AssertionError(f"unknown crop_type {crop_type!r}")
        if crop_type == "absolute_range" and crop_size[0] > crop_size[1]:
            raise AssertionError(f"crop_size is (min, max), got {tuple(crop_size)}")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        crop_h, crop_w = self.get_crop_size((height, width))
        if crop_h > height or crop_w > width:
            raise AssertionError(f"cannot crop {(crop_h, crop_w)} from {(height, width)}")
        y0 = np.random.randint(height - crop_h + 1)
        x0 = np.random.randint(width - crop_w + 1)
        return CropTransform(x0, y0, crop_w, crop_h, orig_w=width, orig_h=height)

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Choose the (height, width) of the crop for an image of `image_size` (height, width)."""
        height, width = image_size
        if self.crop_type == "absolute":
            return min(self.crop_size[0], height), min(self.crop_size[1], width)
        if self.crop_type == "absolute_range":
            low, high = self.crop_size
            crop_h = np.random.randint(min(height, low), min(height, high) + 1)
            crop_w = np.random.randint(min(width, low), min(width, high) + 1)
            return crop_h, crop_w
        fractions = np.asarray(self.crop_size, dtype=np.float32)
        if self.crop_type == "relative_range":
            fractions = fractions + np.random.rand(2) * (1 - fractions)
        return int(height * fractions[0] + 0.5), int(width * fractions[1] + 0.5)


class FixedSizeCrop(Augmentation):
    """Cut to a size at a random place; pad on the right and below what is smaller.

    Args:
        crop_size: (height, width).
        pad: whether to pad.
        pad_value: the padding of the image.
        seg_pad_value: the padding of the segmentation.
    """

    def __init__(
        self,
        crop_size: tuple[int, int],
        pad: bool = True,
        pad_value: float = 128.0,
        seg_pad_value: int = 255,
    ):
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> TransformList:
        size, target = np.array(image.shape[:2]), np.array(self.crop_size)
        # One random number for both axes.
        offset = np.round(np.maximum(size - target, 0) * np.random.uniform(0.0, 1.0))
        y0, x0 = (int(value) for value in offset)
        crop_h, crop_w = (int(value) for value in np.minimum(size, target))
        height, width = image.shape[:2]
        transforms = [CropTransform(x0, y0, crop_w, crop_h, orig_w=width, orig_h=height)]
        if self.pad:
            pad_h, pad_w = (int(value) for value in np.maximum(target - size, 0))
            pad = PadTransform(
                0, 0, pad_w, pad_h, crop_w, crop_h, self.pad_value, self.seg_pad_value
            )
            transforms.append(pad)
        return TransformList(transforms)


class _RandomBlend(Augmentation):
    """Mix the image with another one: w * image + (1 - w) * other, w drawn from a range.

    Args:
        intensity_min, intensity_max: the range of w; 1 leaves the image as it is, less weakens
            the effect's quality, more exaggerates it.
    """

    def __init__(self, intensity_min: float, intensity_max: float):
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        weight = np.random.uniform(self.intensity_min, self.intensity_max)
        return BlendTransform(self._other(image), src_weight=1 - weight, dst_weight=weight)

    def _other(self, image: np.ndarray) -> np.ndarray | float:
        raise NotImplementedError


class RandomBrightness(_RandomBlend):
    """Mix with black."""

    def _other(self, image: np.ndarray) -> float:
        return 0


class RandomContrast(_RandomBlend):
    """Mix with the image's mean."""

    def _other(self, image: np.ndarray) -> float:
        return image.mean()


class RandomSaturation(_RandomBlend):
    """Mix an RGB image with its greyscale version."""

    def _other(self, image: np.ndarray) -> np.ndarray:
        if image.shape[-1] != 3:
            raise AssertionError(f"RandomSaturation works on RGB images, got {image.shape}")
        return image.dot([0.299, 0.587, 0.114])[:, :, np.newaxis]
