"""Instance masks: as bitmaps of the whole image, or as polygons."""

from collections.abc import Iterator, Sequence

import numpy as np
import pycocotools.mask as mask_util
import torch
from torch import Tensor
from torchvision.ops import masks_to_boxes, roi_align

from .boxes import Boxes

__all__ = ["BitMasks", "PolygonMasks", "polygons_to_bitmask"]


def polygons_to_bitmask(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Rasterise one instance's polygons (x0, y0, x1, y1, ...) by COCO's rules.

    Returns a bool array [height, width], the union of the parts; all False when there are none.
    """
    if len(polygons) == 0:
        return np.zeros((height, width), dtype=bool)
    parts = mask_util.frPyObjects(list(polygons), height, width)
    return mask_util.decode(mask_util.merge(parts)).astype(bool)


class BitMasks:
    """N masks, each a bitmap of the whole image: Tensor[N, H, W] of bool."""

    def __init__(self, tensor: Tensor | np.ndarray):
        tensor = torch.as_tensor(tensor).to(torch.bool)
        if tensor.dim() != 3:
            raise AssertionError(f"masks have the shape [N, H, W], got {tuple(tensor.shape)}")
        self.tensor = tensor
        self.image_size = tensor.shape[1:]

    def to(self, *args, **kwargs) -> "BitMasks":
        """Return the masks on another device."""
        return BitMasks(self.tensor.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        """Where the masks lie."""
        return self.tensor.device

    def __getitem__(self, item) -> "BitMasks":
        """Select masks by an int (giving one mask), slice, index tensor or bool mask."""
        if isinstance(item, int):
            return BitMasks(self.tensor[item].unsqueeze(0))
        selected = self.tensor[item]
        if selected.dim() != 3:
            raise AssertionError(f"indexing with {item} does not give masks")
        return BitMasks(selected)

    def __iter__(self) -> Iterator[Tensor]:
        """Go through the masks, each Tensor[H, W] of bool."""
        yield from self.tensor

    def __len__(self) -> int:
        return self.tensor.shape[0]

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
        if isinstance(polygon_masks, PolygonMasks):
            polygon_masks = polygon_masks.polygons
        masks = np.zeros((len(polygon_masks), height, width), dtype=bool)
        for mask, polygons in zip(masks, polygon_masks):
            mask[...] = polygons_to_bitmask(polygons, height, width)
        return BitMasks(torch.from_numpy(masks))

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """Cut each mask to its box, Tensor[N, 4] in pixels of the image, and resize it.

        Returns Tensor[N, mask_size, mask_size] of bool, on the device of the masks.
        """
        if len(boxes) != len(self):
            raise AssertionError(f"{len(boxes)} boxes for {len(self)} masks")
        boxes = boxes.to(device=self.device, dtype=torch.float32)
        rois = torch.cat([torch.arange(len(self), device=self.device)[:, None], boxes], dim=1)
        # Averages over the pixels that fall on each cell; half or more makes it foreground.
        cells = roi_align(self.tensor[:, None].float(), rois, mask_size, aligned=True)
        return cells[:, 0] >= 0.5

    def get_bounding_boxes(self) -> Boxes:
        """Return the tight boxes, right and lower edge behind the last pixel; 0 for empty masks."""
        boxes = torch.zeros(len(self), 4, device=self.device)
        filled = self.nonempty()
        if filled.any():
            boxes[filled] = masks_to_boxes(self.tensor[filled]).float()
            boxes[filled, 2:] += 1
        return Boxes(boxes)

    @staticmethod
    def cat(bitmasks_list: Sequence["BitMasks"]) -> "BitMasks":
        """Join masks of one image size."""
        return BitMasks(torch.cat([masks.tensor for masks in bitmasks_list], dim=0))


class PolygonMasks:
    """N masks, each a list of polygons: arrays (x0, y0, x1, y1, ...) in pixels of 3 points or more.

    ValueError where what was given is not such a list of lists.
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
        """Return self: polygons always lie on the CPU."""
        return self

    @property
    def device(self) -> torch.device:
        """The CPU, always."""
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

    def area(self) -> Tensor:
        """Return each instance's area in square pixels, the sum over its polygons, Tensor[N]."""
        areas = [sum(_polygon_area(part) for part in instance) for instance in self.polygons]
        return torch.tensor(areas, dtype=torch.float64).float()

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """Rasterise each instance inside its box, Tensor[N, 4] in pixels of the image.

        Returns Tensor[N, mask_size, mask_size] of bool, on the device of `boxes`.
        """
        if len(boxes) != len(self):
            raise AssertionError(f"{len(boxes)} boxes for {len(self)} masks")
        corners = boxes.detach().cpu().double().numpy()
        # A box without extent must not divide by zero.
        scales = mask_size / np.maximum(corners[:, 2:] - corners[:, :2], 0.1)
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
        """Select by an int (giving one instance), slice, list, index tensor or bool mask."""
        if isinstance(item, int):
            chosen = [self.polygons[item]]
        elif isinstance(item, slice):
            chosen = self.polygons[item]
        else:
            index = np.asarray(item.cpu() if isinstance(item, Tensor) else item)
            if index.dtype == bool:
                if index.shape != (len(self),):
                    raise IndexError(f"a mask of shape {index.shape} for {len(self)} instances")
                index = index.nonzero()[0]
            chosen = [self.polygons[i] for i in index.astype(int)]
        selected = PolygonMasks([])  # they were checked when they came in
        selected.polygons = chosen
        return selected

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        """Go through the instances, each a list of polygons."""
        return iter(self.polygons)

    def __len__(self) -> int:
        return len(self.polygons)

    def __repr__(self) -> str:
        return f"PolygonMasks(num_instances={len(self)})"

    @classmethod
    def cat(cls, polymasks_list: Sequence["PolygonMasks"]) -> "PolygonMasks":
        """Join several objects into one."""
        return cls([instance for polymasks in polymasks_list for instance in polymasks])


def _polygon_area(polygon: np.ndarray) -> float:
    """Return the area of x0, y0, x1, y1, ... by the shoelace formula."""
    x, y = polygon[0::2], polygon[1::2]
    return 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))
