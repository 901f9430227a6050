"""Axis-aligned boxes and the formats they are written in."""

from collections.abc import Iterator, Sequence
from enum import IntEnum, unique

import numpy as np
import torch
from torch import Tensor

__all__ = ["BoxMode", "Boxes", "pairwise_iou"]


@unique
class BoxMode(IntEnum):
    """How four numbers describe a box. Absolute values are pixels, relative ones lie in [0, 1]."""

    XYXY_ABS = 0
    XYWH_ABS = 1
    XYXY_REL = 2
    XYWH_REL = 3

    @staticmethod
    def convert(box, from_mode: "BoxMode", to_mode: "BoxMode"):
        """Rewrite a box (list, tuple) or boxes (array or tensor [..., 4]) in the type given.

        The input is left as it is. ValueError for a list of another length than 4;
        NotImplementedError for relative modes, which would need the image's size.
        """
        if from_mode == to_mode:
            return box
        absolute = (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
        if from_mode not in absolute or to_mode not in absolute:
            raise NotImplementedError(f"converting boxes from {from_mode!r} to {to_mode!r}")
        # Adding the corner makes a second corner of a size, subtracting it the reverse.
        sign = 1 if from_mode == BoxMode.XYWH_ABS else -1
        if isinstance(box, (list, tuple)):
            if len(box) != 4:
                raise ValueError(f"a box has 4 numbers, got {len(box)}: {box}")
            x, y, a, b = box
            return type(box)((x, y, a + sign * x, b + sign * y))
        converted = box.clone() if isinstance(box, Tensor) else np.array(box)
        converted[..., 2:] += sign * converted[..., :2]
        return converted


class Boxes:
    """N boxes as one float32 tensor [N, 4], each (x0, y0, x1, y1) in pixels.

    Behaves like a tensor along its first dimension: indexing, length, iteration, devices.
    """

    def __init__(self, tensor: Tensor):
        tensor = torch.as_tensor(tensor, dtype=torch.float32)
        if tensor.numel() == 0:
            tensor = tensor.reshape(-1, 4)
        if tensor.dim() != 2 or tensor.size(-1) != 4:
            raise AssertionError(f"boxes have the shape [N, 4], got {tuple(tensor.shape)}")
        self.tensor = tensor

    def clone(self) -> "Boxes":
        """Return a copy that shares no memory."""
        return Boxes(self.tensor.clone())

    def to(self, device: torch.device) -> "Boxes":
        """Return the boxes on another device; they stay float32."""
        return Boxes(self.tensor.to(device=device))

    def area(self) -> Tensor:
        """Return the areas in square pixels, Tensor[N]."""
        size = self.tensor[:, 2:] - self.tensor[:, :2]
        return size[:, 0] * size[:, 1]

    def clip(self, box_size: tuple[int, int]) -> None:
        """Cut the boxes, in place, to an image of `box_size` (height, width)."""
        if not torch.isfinite(self.tensor).all():
            raise AssertionError("cannot clip boxes that are infinite or NaN")
        height, width = box_size
        x = self.tensor[:, 0::2].clamp(min=0, max=width)
        y = self.tensor[:, 1::2].clamp(min=0, max=height)
        # A new tensor, so that a clip never reaches into what the boxes were sliced from.
        self.tensor = torch.stack((x, y), dim=2).flatten(1)

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """Tell which boxes are wider and higher than `threshold` pixels, Tensor[N] of bool."""
        return ((self.tensor[:, 2:] - self.tensor[:, :2]) > threshold).all(dim=1)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: int = 0) -> Tensor:
        """Tell which boxes lie in an image of `box_size` (height, width), Tensor[N] of bool.

        They may stick out by less than `boundary_threshold` pixels at the right and the bottom, and
        by up to as much at the left and the top.
        """
        height, width = box_size
        x0, y0, x1, y1 = self.tensor.unbind(dim=1)
        inside_low = (x0 >= -boundary_threshold) & (y0 >= -boundary_threshold)
        inside_high = (x1 < width + boundary_threshold) & (y1 < height + boundary_threshold)
        return inside_low & inside_high

    def get_centers(self) -> Tensor:
        """Return the centres (x, y), Tensor[N, 2]."""
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply, in place, x by `scale_x` and y by `scale_y`."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    @classmethod
    def cat(cls, boxes_list: Sequence["Boxes"]) -> "Boxes":
        """Join several boxes objects into one."""
        if len(boxes_list) == 0:
            return cls(torch.empty(0, 4))
        return cls(torch.cat([boxes.tensor for boxes in boxes_list], dim=0))

    @property
    def device(self) -> torch.device:
        """Where the boxes lie."""
        return self.tensor.device

    def __getitem__(self, item) -> "Boxes":
        """Select boxes by an int (giving one box), slice, index tensor or bool mask."""
        if isinstance(item, int):
            return Boxes(self.tensor[item].view(1, 4))
        selected = self.tensor[item]
        if selected.dim() != 2:
            raise AssertionError(f"indexing with {item} does not give boxes")
        return Boxes(selected)

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        """Go through the boxes as tensors of 4 numbers."""
        yield from self.tensor

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Return the intersection over union of every box with every other, Tensor[N, M].

    Boxes that do not intersect, empty ones among them, have an IoU of 0.
    """
    a, b = boxes1.tensor, boxes2.tensor
    low = torch.maximum(a[:, None, :2], b[:, :2])
    high = torch.minimum(a[:, None, 2:], b[:, 2:])
    intersection = (high - low).clamp_(min=0).prod(dim=2)
    union = boxes1.area()[:, None] + boxes2.area() - intersection
    return torch.where(intersection > 0, intersection / union, intersection.new_zeros(()))
