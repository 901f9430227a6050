"""Images of different sizes in one padded tensor."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ImageList"]


def _padded_size(
    sizes: Sequence[tuple[int, int]], divisibility: int, constraints: Mapping[str, int]
) -> tuple[int, int]:
    """Return the (height, width) that holds all sizes and meets the constraints."""
    height, width = (max(side) for side in zip(*sizes))
    square = constraints.get("square_size", 0)
    if square > 0:
        # A square that is too small for the batch grows to its longest side.
        height = width = max(square, height, width)
    # The constraint's own divisibility, where there is one, replaces the argument's.
    divisibility = constraints.get("size_divisibility", divisibility)
    if divisibility > 1:
        height, width = (-(-side // divisibility) * divisibility for side in (height, width))
    return height, width


class ImageList:
    """A batch of images, padded at the right and the bottom: Tensor[N, ..., H, W].

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

    def to(self, *args, **kwargs) -> "ImageList":
        """Return the batch on another device or in another dtype, as `Tensor.to` would."""
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    @property
    def device(self) -> torch.device:
        """Where the batch lies."""
        return self.tensor.device

    @staticmethod
    def from_tensors(
        tensors: Sequence[Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: Mapping[str, int] | None = None,
    ) -> "ImageList":
        """Pad images, each Tensor[..., Hi, Wi], with `pad_value` to a common size and stack them.

        The sides become multiples of `size_divisibility`, if that is more than 1. Of the optional
        `padding_constraints`, as `Backbone.padding_constraints` gives them, "size_divisibility"
        replaces the argument, and "square_size", if more than 0, is the least side of a square.
        """
        if len(tensors) == 0:
            raise AssertionError("cannot make a batch of no images")
        sizes = [(int(t.shape[-2]), int(t.shape[-1])) for t in tensors]
        height, width = _padded_size(sizes, size_divisibility, padding_constraints or {})
        if len(tensors) == 1:
            h, w = sizes[0]
            batch = F.pad(tensors[0], (0, width - w, 0, height - h), value=pad_value)[None]
        else:
            shape = (len(tensors), *tensors[0].shape[:-2], height, width)
            batch = tensors[0].new_full(shape, pad_value)
            for slot, image, (h, w) in zip(batch, tensors, sizes):
                slot[..., :h, :w].copy_(image)
        return ImageList(batch.contiguous(), sizes)
