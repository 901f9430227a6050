"""Anchors: the boxes that proposals start from."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..structures import Boxes

__all__ = ["DefaultAnchorGenerator"]


def _per_level(values: Sequence, num_levels: int, name: str) -> list[list[float]]:
    """Spread one list of floats over all levels, or check that there is a list for each."""
    if len(values) == 0:
        raise ValueError(f"{name} must not be empty")
    if not isinstance(values[0], Sequence):
        return [list(values)] * num_levels
    if len(values) == 1:
        return [list(values[0])] * num_levels
    if len(values) != num_levels:
        raise ValueError(f"{name} has {len(values)} entries for {num_levels} feature maps")
    return [list(v) for v in values]


class DefaultAnchorGenerator(nn.Module):
    """Anchors of given sizes and shapes around every cell of every feature map.

    Args:
        sizes: for each feature map a list of anchor sizes (the square root of the area) in pixels
            of the image; or one list for all maps.
        aspect_ratios: for each feature map a list of ratios height / width; or one list for all.
        strides: of each feature map, in pixels.
        offset: where in its cell an anchor is centred, from 0 (upper left corner) to below 1; 0.5
            is the middle.

    Raises:
        ValueError: an offset outside [0, 1), or lists that do not fit the number of maps.
    """

    box_dim: int = 4

    def __init__(
        self,
        *,
        sizes: Sequence,
        aspect_ratios: Sequence,
        strides: Sequence[int],
        offset: float = 0.5,
    ):
        super().__init__()
        if not 0.0 <= offset < 1.0:
            raise ValueError(f"offset lies in [0, 1), got {offset}")
        self.strides = list(strides)
        self.num_features = len(self.strides)
        self.offset = offset
        sizes = _per_level(sizes, self.num_features, "sizes")
        aspect_ratios = _per_level(aspect_ratios, self.num_features, "aspect_ratios")
        for level, (s, a) in enumerate(zip(sizes, aspect_ratios)):
            anchors = self.generate_cell_anchors(s, a)
            # Not saved: checkpoints hold only what is learned.
            self.register_buffer(f"cell_anchors_{level}", anchors, persistent=False)

    @property
    def cell_anchors(self) -> list[Tensor]:
        """The anchors of each feature map around (0, 0), each Tensor[A, 4]."""
        return [getattr(self, f"cell_anchors_{level}") for level in range(self.num_features)]

    @property
    def num_anchors(self) -> list[int]:
        """The number of anchors per cell, for each feature map."""
        return [len(anchors) for anchors in self.cell_anchors]

    @property
    def num_cell_anchors(self) -> list[int]:
        """The same as `num_anchors`."""
        return self.num_anchors

    @staticmethod
    def generate_cell_anchors(
        sizes: Sequence[float] = (32, 64, 128, 256, 512),
        aspect_ratios: Sequence[float] = (0.5, 1, 2),
    ) -> Tensor:
        """Return anchors centred at (0, 0): Tensor[len(sizes) * len(aspect_ratios), 4].

        Sizes vary slowest.
        """
        half_sides = [
            (0.5 * size / math.sqrt(ratio), 0.5 * size * math.sqrt(ratio))
            for size in sizes
            for ratio in aspect_ratios
        ]
        return torch.tensor([(-w, -h, w, h) for w, h in half_sides])

    def forward(self, features: list[Tensor]) -> list[Boxes]:
        """Return the Hi * Wi * Ai anchors of each feature map [N, C, Hi, Wi].

        Rows vary slowest, then columns, then the anchors of a cell.
        """
        return [
            Boxes(self._level_anchors(feature.shape[-2:], stride, cell_anchors))
            for feature, stride, cell_anchors in zip(features, self.strides, self.cell_anchors)
        ]

    def _level_anchors(self, size: Sequence[int], stride: int, cell_anchors: Tensor) -> Tensor:
        height, width = size
        device = cell_anchors.device
        y = (torch.arange(height, device=device, dtype=torch.float32) + self.offset) * stride
        x = (torch.arange(width, device=device, dtype=torch.float32) + self.offset) * stride
        y, x = torch.meshgrid(y, x, indexing="ij")
        centers = torch.stack((x, y, x, y), dim=-1)  # [Hi, Wi, 4]
        return (centers[:, :, None] + cell_anchors).reshape(-1, 4)
