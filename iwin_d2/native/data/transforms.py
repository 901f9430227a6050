"""Augmentations (random choices, by NumPy's global generator) and the transforms that they give."""

import inspect
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from fvcore.transforms import transform as fvcore_transform
from fvcore.transforms.transform import (
    HFlipTransform,
    NoOpTransform,
    PadTransform,  # noqa: F401
    Transform,
    TransformList,
    VFlipTransform,
)
from PIL import Image


class ResizeTransform(Transform):
    """Resize an image from (h, w) to (new_h, new_w) by one of Pillow's methods, bilinear if None.

    uint8 images are resized by Pillow, which averages over all pixels that a new one covers;
    others by torch, which does not. Segmentations take the nearest pixel.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None):
        super().__init__()
        if interp is None:
            interp = Image.BILINEAR
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Resize an array [H, W] or [H, W, C]."""
        if img.shape[:2] != (self.h, self.w):
            raise AssertionError(f"an image of {img.shape[:2]} for a resize of {(self.h, self.w)}")
        interp = self.interp if interp is None else interp
        if (self.h, self.w) == (self.new_h, self.new_w):
            return img
        resize = self._resize_uint8 if img.dtype == np.uint8 else self._resize_other
        return resize(img, interp)

    def _resize_uint8(self, img: np.ndarray, interp: int) -> np.ndarray:
        if img.ndim == 2 or img.shape[2] == 3:
            return np.asarray(Image.fromarray(img).resize((self.new_w, self.new_h), interp))
        channels = np.moveaxis(img, 2, 0)
        return np.dstack([self._resize_uint8(channel, interp) for channel in channels])

    def _resize_other(self, img: np.ndarray, interp: int) -> np.ndarray:
        if interp == Image.NEAREST:
            mode = "nearest-exact"  # what Pillow calls nearest
        else:
            mode = {Image.BILINEAR: "bilinear", Image.BICUBIC: "bicubic"}[interp]
        batch = torch.from_numpy(img.reshape(1, self.h, self.w, -1).astype(np.float64))
        size = (self.new_h, self.new_w)
        resized = F.interpolate(batch.permute(0, 3, 1, 2), size, mode=mode)[0]
        return resized.permute(1, 2, 0).numpy().astype(img.dtype).reshape(*size, *img.shape[2:])

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Scale points [N, 2]; returns a new array."""
        return coords * np.array([self.new_w / self.w, self.new_h / self.h])

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Resize a label map or mask [H, W] without making new values."""
        return self.apply_image(segmentation, interp=Image.NEAREST)

    def inverse(self) -> "ResizeTransform":
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.interp)


class CropTransform(fvcore_transform.CropTransform):
    """fvcore's crop, cutting polygons without the package shapely."""

    def apply_polygons(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        """Cut polygons, each [N, 2], to the crop; those with nothing inside are dropped.

        A polygon that falls into several parts stays one, its parts joined along the border by
        lines of no area.
        """
        cut = [self._cut(np.array(polygon, dtype=np.float64)) for polygon in polygons]
        return [self.apply_coords(polygon) for polygon in cut if _has_area(polygon)]

    def _cut(self, points: np.ndarray) -> np.ndarray:
        for axis, low, size in ((0, self.x0, self.w), (1, self.y0, self.h)):
            points = _cut_to_half_plane(points, axis, low, 1)
            points = _cut_to_half_plane(points, axis, low + size, -1)
        return points


def _has_area(points: np.ndarray) -> bool:
    x, y = (points - points[:1]).T  # so that large coordinates cost no digits
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) > 1e-9


def _cut_to_half_plane(points: np.ndarray, axis: int, bound: float, sign: int) -> np.ndarray:
    """Keep of a polygon what has sign * (coordinate - bound) >= 0 (Sutherland and Hodgman)."""
    distance = sign * (points[:, axis] - bound)
    inside = distance >= 0
    if inside.all() or not inside.any():
        return points[inside]
    following, following_distance = np.roll(points, -1, axis=0), np.roll(distance, -1)
    crossing = inside != np.roll(inside, -1)
    step = np.where(crossing, distance - following_distance, 1)
    met = points + (distance / step)[:, None] * (following - points)
    met[:, axis] = bound
    # Each corner, if inside, then where the edge that leaves it meets the line, if it does.
    both = np.stack([points, met], axis=1).reshape(-1, 2)
    return both[np.stack([inside, crossing], axis=1).ravel()]


class AugInput:
    """What augmentations look at and change: an image, its boxes and its segmentation.

    `image` is an array [H, W] or [H, W, C], uint8 or floating point; `boxes` [N, 4] of x0, y0, x1,
    y1 in pixels; `sem_seg` [H, W] of integers. More attributes may be set for augmentations that
    ask for them, but only these are transformed.
    """

    def __init__(
        self,
        image: np.ndarray,
        *,
        boxes: np.ndarray | None = None,
        sem_seg: np.ndarray | None = None,
    ):
        if image.dtype != np.uint8 and image.dtype.kind != "f":
            raise AssertionError(f"an image is of uint8 or floats, got {image.dtype}")
        self.image = image
        self.boxes = boxes
        self.sem_seg = sem_seg

    def transform(self, tfm: Transform) -> None:
        """Apply a transform to image, boxes and segmentation, in place."""
        self.image = tfm.apply_image(self.image)
        if self.boxes is not None:
            self.boxes = tfm.apply_box(self.boxes)
        if self.sem_seg is not None:
            self.sem_seg = tfm.apply_segmentation(self.sem_seg)


class Augmentation:
    """A policy that chooses a transform, at random or by the input.

    Subclasses define `get_transform(self, image, ...)`; its arguments are the attributes of those
    names of the AugInput.
    """

    def get_transform(self, *args: Any) -> Transform:
        """Choose the transform, without applying it."""
        raise NotImplementedError

    def __call__(self, aug_input: AugInput) -> Transform:
        """Choose a transform, apply it to `aug_input` in place, and return it."""
        parameters = inspect.signature(self.get_transform).parameters.values()
        names = [p.name for p in parameters if p.default is p.empty]
        tfm = self.get_transform(*(getattr(aug_input, name) for name in names))
        aug_input.transform(tfm)
        return tfm

    def _init(self, params: dict[str, Any]) -> None:
        """Keep a constructor's `locals()` as attributes."""
        for name, value in params.items():
            if name != "self" and not name.startswith("_"):
                setattr(self, name, value)

    def __repr__(self) -> str:
        names = [n for n in inspect.signature(type(self).__init__).parameters if n != "self"]
        shown = [f"{name}={getattr(self, name)!r}" for name in names if hasattr(self, name)]
        return f"{type(self).__name__}({', '.join(shown)})"


class AugmentationList(Augmentation):
    """Augmentations and transforms in order; each sees what those before it have left."""

    def __init__(self, augs: Sequence[Augmentation | Transform]):
        self.augs = list(augs)

    def __call__(self, aug_input: AugInput) -> TransformList:
        return TransformList([self._apply(aug, aug_input) for aug in self.augs])

    @staticmethod
    def _apply(aug: Augmentation | Transform, aug_input: AugInput) -> Transform:
        if isinstance(aug, Augmentation):
            return aug(aug_input)
        aug_input.transform(aug)
        return aug

    def __repr__(self) -> str:
        return f"AugmentationList[{', '.join(map(repr, self.augs))}]"


class RandomFlip(Augmentation):
    """Mirror the image with a probability, horizontally (the default) or vertically."""

    def __init__(self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False):
        if bool(horizontal) == bool(vertical):
            raise ValueError("RandomFlip takes exactly one of horizontal and vertical.")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        if np.random.uniform() >= self.prob:
            return NoOpTransform()
        return HFlipTransform(width) if self.horizontal else VFlipTransform(height)


class Resize(Augmentation):
    """Resize to a fixed shape: (height, width), or one number for both."""

    def __init__(self, shape: int | tuple[int, int], interp: int = Image.BILINEAR):
        shape = (shape, shape) if isinstance(shape, int) else tuple(shape)
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        return ResizeTransform(*image.shape[:2], *self.shape, self.interp)


class ResizeShortestEdge(Augmentation):
    """Resize, keeping the aspect ratio, so that the shorter side has a given length.

    The length is drawn from (min, max) with `sample_style` "range", from a list with "choice"; the
    longer side is never longer than `max_size`.
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
        if sample_style == "range" and len(short_edge_length) != 2:
            raise AssertionError(
                "with sample_style 'range', short_edge_length is (min, max), "
                f"got {short_edge_length}"
            )
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        if self.sample_style == "range":
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


class RandomCrop(Augmentation):
    """Cut a rectangle out at a random place. What `crop_size` means, `crop_type` says:

    "relative": fractions of height and width. "relative_range": fractions drawn between these and
    1. "absolute": (height, width) in pixels, not more than the image has. "absolute_range": (min,
    max), between which height and width are drawn, not more than the image has.
    """

    def __init__(self, crop_type: str, crop_size: Sequence[float]):
        if crop_type not in ("relative", "relative_range", "absolute", "absolute_range"):
            raise AssertionError(f"unknown crop_type {crop_type!r}")
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
