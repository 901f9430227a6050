"""The transforms that fvcore lacks, or cannot do without further packages."""

import numpy as np
import torch
import torch.nn.functional as F
from fvcore.transforms.transform import CropTransform as _CropTransform
from fvcore.transforms.transform import Transform
from PIL import Image

__all__ = ["CropTransform", "ResizeTransform"]


class ResizeTransform(Transform):
    """Resize an image from (h, w) to (new_h, new_w).

    uint8 images are resized by Pillow, which averages over all pixels that a new one covers;
    floating-point ones by torch, which does not. Segmentations take the nearest pixel.

    Args:
        h, w: the size before.
        new_h, new_w: the size after.
        interp: one of Pillow's methods; None is bilinear.
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
        if img.dtype == np.uint8:
            return self._resize_uint8(img, interp)
        if img.dtype.kind in "iub" and interp == Image.NEAREST:
            return self._pick_nearest(img)
        return self._resize_float(img, interp)

    def _resize_uint8(self, img: np.ndarray, interp: int) -> np.ndarray:
        size = (self.new_w, self.new_h)
        if img.ndim == 2 or img.shape[2] == 3:
            return np.asarray(Image.fromarray(img).resize(size, interp))
        channels = [Image.fromarray(img[:, :, c]).resize(size, interp) for c in range(img.shape[2])]
        return np.stack([np.asarray(channel) for channel in channels], axis=2)

    def _pick_nearest(self, img: np.ndarray) -> np.ndarray:
        """Take, for each new pixel, the old one its centre falls on, as Pillow does with uint8."""
        rows = ((np.arange(self.new_h) + 0.5) * self.h / self.new_h).astype(np.int64)
        columns = ((np.arange(self.new_w) + 0.5) * self.w / self.new_w).astype(np.int64)
        return img[rows[:, None], columns]

    def _resize_float(self, img: np.ndarray, interp: int) -> np.ndarray:
        modes = {Image.NEAREST: "nearest", Image.BILINEAR: "bilinear", Image.BICUBIC: "bicubic"}
        if img.dtype.kind != "f" or interp not in modes:
            raise ValueError(f"resizing {img.dtype} by Pillow's method {interp} is not implemented")
        batch = torch.from_numpy(np.ascontiguousarray(img).reshape(1, self.h, self.w, -1))
        resized = F.interpolate(
            batch.permute(0, 3, 1, 2),
            (self.new_h, self.new_w),
            mode=modes[interp],
            align_corners=None if interp == Image.NEAREST else False,
        )
        return resized[0].permute(1, 2, 0).numpy().reshape(self.new_h, self.new_w, *img.shape[2:])

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Scale points [N, 2]; returns a new array."""
        dtype = coords.dtype if coords.dtype.kind == "f" else np.float64
        return coords * np.array([self.new_w / self.w, self.new_h / self.h], dtype=dtype)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Resize a label map or mask [H, W] without making new values."""
        return self.apply_image(segmentation, interp=Image.NEAREST)

    def inverse(self) -> "ResizeTransform":
        """Resize back."""
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.interp)


class CropTransform(_CropTransform):
    """fvcore's crop, cutting polygons without the package shapely."""

    def apply_polygons(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        """Cut polygons, each [N, 2], to the crop; those with nothing inside are dropped.

        A polygon that falls into several parts stays one, its parts joined along the border by
        lines of no area.
        """
        cut = (
            _cut_to_box(p, self.x0, self.y0, self.x0 + self.w, self.y0 + self.h) for p in polygons
        )
        return [self.apply_coords(polygon) for polygon in cut if polygon is not None]


def _cut_to_box(
    points: np.ndarray, x0: float, y0: float, x1: float, y1: float
) -> np.ndarray | None:
    """Return the part of a polygon inside a box, a new array; None if it has no area there."""
    points = np.array(points, dtype=np.float64)
    for axis, bound, sign in ((0, x0, 1), (0, x1, -1), (1, y0, 1), (1, y1, -1)):
        points = _cut_to_half_plane(points, axis, bound, sign)
        if len(points) < 3:
            return None
    x, y = points[:, 0], points[:, 1]
    # Relative to a corner, so that large coordinates cost no digits.
    x, y = x - x[0], y - y[0]
    doubled_area = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1))
    return points if doubled_area > 1e-9 else None


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
