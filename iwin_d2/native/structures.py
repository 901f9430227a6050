"""What is in a picture: boxes, masks, per-image instances, batches of images.

Everything but a batch behaves like a tensor along its first dimension: it is indexed by an int
(giving one entry, not a lower dimension), a slice, an index tensor or a bool mask.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum, unique
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from torch import Tensor
from torchvision import ops


@unique
class BoxMode(IntEnum):
    """How four numbers, in pixels, describe a box."""

    XYXY_ABS = 0
    XYWH_ABS = 1

    @staticmethod
    def convert(box, from_mode: "BoxMode", to_mode: "BoxMode"):
        """Rewrite a box (list, tuple) or boxes (array or tensor [..., 4]) in the type given."""
        if from_mode == to_mode:
            return box
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


class _Rows:
    """What boxes and bitmaps have in common: a tensor of one entry a row."""

    tensor: Tensor

    def to(self, *args, **kwargs):
        return type(self)(self.tensor.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __getitem__(self, item):
        return type(self)(self.tensor[item, None] if isinstance(item, int) else self.tensor[item])

    def __len__(self) -> int:
        return len(self.tensor)

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.tensor

    @classmethod
    def cat(cls, parts: Sequence):
        return cls(torch.cat([part.tensor for part in parts]) if parts else [])


class Boxes(_Rows):
    """N boxes as one float32 `tensor` [N, 4], each (x0, y0, x1, y1) in pixels."""

    def __init__(self, tensor: Tensor):
        tensor = torch.as_tensor(tensor, dtype=torch.float32)
        if tensor.numel() == 0:
            tensor = tensor.reshape(-1, 4)
        if tensor.dim() != 2 or tensor.size(-1) != 4:
            raise AssertionError(f"boxes have the shape [N, 4], got {tuple(tensor.shape)}")
        self.tensor = tensor

    def clone(self) -> "Boxes":
        return Boxes(self.tensor.clone())

    def area(self) -> Tensor:
        return ops.box_area(self.tensor)

    def clip(self, box_size: tuple[int, int]) -> None:
        """Cut the boxes, in place, to an image of `box_size` (height, width)."""
        if not torch.isfinite(self.tensor).all():
            raise AssertionError("cannot clip boxes that are infinite or NaN")
        # A new tensor, so that a clip never reaches into what the boxes were sliced from.
        self.tensor = ops.clip_boxes_to_image(self.tensor, box_size)

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """Tell which boxes are wider and higher than `threshold` pixels, Tensor[N] of bool."""
        return ((self.tensor[:, 2:] - self.tensor[:, :2]) > threshold).all(dim=1)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: int = 0) -> Tensor:
        """Tell which boxes lie in an image of `box_size` (height, width), Tensor[N] of bool.

        They may stick out by less than `boundary_threshold` pixels at the right and the bottom, and
        by up to as much at the left and the top.
        """
        high = self.tensor.new_tensor(box_size).flip(0) + boundary_threshold
        inside = (self.tensor[:, :2] >= -boundary_threshold) & (self.tensor[:, 2:] < high)
        return inside.all(dim=1)

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply, in place, x by `scale_x` and y by `scale_y`."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Return the IoU of every box with every other, Tensor[N, M]; 0, not NaN, for empty ones."""
    return ops.box_iou(boxes1.tensor, boxes2.tensor).nan_to_num_(0.0)


def polygons_to_bitmask(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Rasterise the union of polygons (x0, y0, x1, y1, ...) by COCO's rules: bool [H, W]."""
    if len(polygons) == 0:
        return np.zeros((height, width), dtype=bool)
    parts = mask_util.frPyObjects(list(polygons), height, width)
    return mask_util.decode(mask_util.merge(parts)).astype(bool)


class BitMasks(_Rows):
    """N masks, each a bitmap of the whole image: `tensor` [N, H, W] of bool."""

    def __init__(self, tensor: Tensor | np.ndarray):
        tensor = torch.as_tensor(tensor).to(torch.bool)
        if tensor.dim() != 3:
            raise AssertionError(f"masks have the shape [N, H, W], got {tuple(tensor.shape)}")
        self.tensor = tensor
        self.image_size = tensor.shape[1:]

    def __repr__(self) -> str:
        return f"BitMasks(num_instances={len(self)}, image_size={tuple(self.image_size)})"

    def nonempty(self) -> Tensor:
        """Tell which masks have any pixel set, Tensor[N] of bool."""
        return self.tensor.flatten(1).any(dim=1)

    @staticmethod
    def from_polygon_masks(
        polygon_masks: "PolygonMasks | list[list[np.ndarray]]", height: int, width: int
    ) -> "BitMasks":
        """Rasterise polygons on an image of that size."""
        masks = np.zeros((len(polygon_masks), height, width), dtype=bool)
        for mask, polygons in zip(masks, polygon_masks):
            mask[...] = polygons_to_bitmask(polygons, height, width)
        return BitMasks(masks)

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """Cut each mask to its box, Tensor[N, 4] in pixels of the image, and resize it.

        Returns Tensor[N, mask_size, mask_size] of bool, on the device of the masks.
        """
        if len(boxes) != len(self):
            raise AssertionError(f"{len(boxes)} boxes for {len(self)} masks")
        boxes = boxes.to(device=self.device, dtype=torch.float32)
        rois = torch.cat([torch.arange(len(self), device=self.device)[:, None], boxes], dim=1)
        # Averages over the pixels that fall on each cell; half or more makes it foreground.
        cells = ops.roi_align(self.tensor[:, None].float(), rois, mask_size, aligned=True)
        return cells[:, 0] >= 0.5

    def get_bounding_boxes(self) -> Boxes:
        """Return the tight boxes, right and lower edge behind the last pixel; 0 for empty masks."""
        boxes = torch.zeros(len(self), 4, device=self.device)
        filled = self.nonempty()
        boxes[filled] = ops.masks_to_boxes(self.tensor[filled]).float()
        boxes[filled, 2:] += 1
        return Boxes(boxes)


class PolygonMasks:
    """N masks, each a list of `polygons`: arrays (x0, y0, x1, y1, ...) in pixels, on the CPU.

    ValueError where what was given is not such a list of lists, or a polygon has under 3 points.
    """

    def __init__(self, polygons: list[list[Tensor | np.ndarray]]):
        if not isinstance(polygons, list):
            raise ValueError(f"polygon masks are a list of instances, got {type(polygons)}")
        self.polygons: list[list[np.ndarray]] = [self._check(instance) for instance in polygons]

    @staticmethod
    def _check(instance: list) -> list[np.ndarray]:
        if not isinstance(instance, list):
            raise ValueError(f"an instance is a list of polygons, got {type(instance)}")
        parts = [np.asarray(p.cpu() if isinstance(p, Tensor) else p, "float64") for p in instance]
        for part in parts:
            if part.ndim != 1 or len(part) % 2 or len(part) < 6:
                raise ValueError(f"a polygon is x, y of 3 or more points; got shape {part.shape}")
        return parts

    def to(self, *args, **kwargs) -> "PolygonMasks":
        return self

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def get_bounding_boxes(self) -> Boxes:
        """Return the tight boxes; an instance without polygons has the box (0, 0, 0, 0)."""
        boxes = np.zeros((len(self), 4), dtype=np.float32)
        for box, instance in zip(boxes, self.polygons):
            if instance:
                points = np.concatenate(instance).reshape(-1, 2)
                box[:2], box[2:] = points.min(axis=0), points.max(axis=0)
        return Boxes(torch.from_numpy(boxes))

    def nonempty(self) -> Tensor:
        """Tell which instances have any polygon, Tensor[N] of bool."""
        return torch.tensor([len(instance) > 0 for instance in self.polygons], dtype=torch.bool)

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """Rasterise each instance inside its box, Tensor[N, 4] in pixels of the image.

        Returns Tensor[N, mask_size, mask_size] of bool, on the device of `boxes`.
        """
        if len(boxes) != len(self):
            raise AssertionError(f"{len(boxes)} boxes for {len(self)} masks")
        corners = boxes.detach().cpu().float().numpy()
        # Scales are float32, as Detectron2's: they decide on outlines along an edge of the box.
        scales = mask_size / np.maximum(corners[:, 2:] - corners[:, :2], 0.1)  # never by 0
        parts, owners = [], []
        for owner, (instance, corner, scale) in enumerate(zip(self.polygons, corners, scales)):
            for part in instance:
                parts.append(((part.reshape(-1, 2) - corner[:2]) * scale).ravel())
                owners.append(owner)
        masks = np.zeros((len(self), mask_size, mask_size), dtype=np.uint8)
        if parts:  # all in one call: a call for each box costs more than the rasterising
            drawn = mask_util.decode(mask_util.frPyObjects(parts, mask_size, mask_size))
            np.bitwise_or.at(masks, np.array(owners), drawn.transpose(2, 0, 1))
        return torch.from_numpy(masks).to(device=boxes.device, dtype=torch.bool)

    def __getitem__(self, item) -> "PolygonMasks":
        # NumPy's own indexing, of every kind, says which.
        index = item.cpu().numpy() if isinstance(item, Tensor) else item
        chosen = np.atleast_1d(np.arange(len(self))[index])
        selected = PolygonMasks([])  # they were checked when they came in
        selected.polygons = [self.polygons[i] for i in chosen]
        return selected

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        return iter(self.polygons)

    def __len__(self) -> int:
        return len(self.polygons)

    def __repr__(self) -> str:
        return f"PolygonMasks(num_instances={len(self)})"

    @classmethod
    def cat(cls, polymasks_list: Sequence["PolygonMasks"]) -> "PolygonMasks":
        return cls([*itertools.chain(*polymasks_list)])


class Instances:
    """A table: one row an object of the image, one column a field (boxes, classes, masks, ...).

    Fields are set and read as attributes, and all have one length; names that begin with an
    underscore are ordinary attributes. `image_size` is (height, width).
    """

    def __init__(self, image_size: tuple[int, int], **kwargs: Any):
        self._image_size = image_size
        self._fields: dict[str, Any] = {}
        for name, value in kwargs.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        return self._image_size

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        # Asked only for what ordinary look-up lacks; "_fields" itself is absent while unpickling.
        fields = self.__dict__.get("_fields", {})
        if name not in fields:
            raise AttributeError(f"Instances have no field {name!r}; fields: {sorted(fields)}")
        return fields[name]

    def set(self, name: str, value: Any) -> None:
        """Set a field; AssertionError if its length differs from that of the others."""
        if len(self._fields) and len(value) != len(self):
            raise AssertionError(
                f"field {name!r} has {len(value)} entries, the other fields have {len(self)}"
            )
        self._fields[name] = value

    def has(self, name: str) -> bool:
        return name in self._fields

    def remove(self, name: str) -> None:
        del self._fields[name]

    def get(self, name: str) -> Any:
        return self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """Return all fields by name: the dict itself, whose changes are the instances' changes."""
        return self._fields

    def to(self, *args, **kwargs) -> "Instances":
        """Return the instances with `to(...)` called on each field that has it."""
        moved = {
            name: value.to(*args, **kwargs) if hasattr(value, "to") else value
            for name, value in self._fields.items()
        }
        return Instances(self._image_size, **moved)

    def __getitem__(self, item) -> "Instances":
        if isinstance(item, int):
            item = range(len(self))[item]  # counts from the end, refuses what is outside
            item = slice(item, item + 1)
        selected = {name: value[item] for name, value in self._fields.items()}
        return Instances(self._image_size, **selected)

    def __len__(self) -> int:
        for value in self._fields.values():
            return len(value)
        raise NotImplementedError("Instances without fields have no length")

    def __iter__(self):
        raise NotImplementedError("Instances cannot be iterated over: iterate over a field")

    @staticmethod
    def cat(instance_lists: list["Instances"]) -> "Instances":
        """Join the instances of one image. The result has the fields of the first of the list."""
        first = instance_lists[0]
        if len(instance_lists) == 1:
            return first
        if any(other.image_size != first.image_size for other in instance_lists):
            raise AssertionError("cannot join instances of images of different sizes")
        joined = Instances(first.image_size)
        for name, value in first.get_fields().items():
            columns = [instances.get(name) for instances in instance_lists]
            if isinstance(value, Tensor):
                joined.set(name, torch.cat(columns, dim=0))
            elif isinstance(value, list):
                joined.set(name, list(itertools.chain(*columns)))
            else:
                joined.set(name, type(value).cat(columns))
        return joined

    def __repr__(self) -> str:
        height, width = self._image_size
        fields = ", ".join(f"{name}: {value}" for name, value in self._fields.items())
        return (
            f"Instances(num_instances={len(self) if self._fields else 0}, image_height={height}, "
            f"image_width={width}, fields=[{fields}])"
        )


class ImageList:
    """A batch of images, padded at the right and the bottom: `tensor` [N, ..., H, W].

    `image_sizes` are the (height, width) of each before padding.
    """

    def __init__(self, tensor: Tensor, image_sizes: list[tuple[int, int]]):
        self.tensor = tensor
        self.image_sizes = [tuple(size) for size in image_sizes]

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, idx: int) -> Tensor:
        """Return one image without its padding."""
        height, width = self.image_sizes[idx]
        return self.tensor[idx, ..., :height, :width]

    @staticmethod
    def from_tensors(
        tensors: Sequence[Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: Mapping[str, int] | None = None,
    ) -> "ImageList":
        """Pad images, each Tensor[..., Hi, Wi], with `pad_value` to a common size and stack them.

        The sides become multiples of `size_divisibility`. Of `padding_constraints`, as
        `Backbone.padding_constraints` gives them, "size_divisibility" replaces the argument, and
        "square_size" is the least side of a square; 0 asks for nothing.
        """
        if len(tensors) == 0:
            raise AssertionError("cannot make a batch of no images")
        constraints = padding_constraints or {}
        sizes = [(int(t.shape[-2]), int(t.shape[-1])) for t in tensors]
        height, width = (max(side) for side in zip(*sizes))
        if constraints.get("square_size", 0) > 0:
            height = width = max(constraints["square_size"], height, width)
        divisibility = constraints.get("size_divisibility", size_divisibility)
        if divisibility > 1:
            height, width = (-(-side // divisibility) * divisibility for side in (height, width))
        batch = tensors[0].new_full(
            (len(tensors), *tensors[0].shape[:-2], height, width), pad_value
        )
        for slot, image, (h, w) in zip(batch, tensors, sizes):
            slot[..., :h, :w].copy_(image)
        return ImageList(batch, sizes)
