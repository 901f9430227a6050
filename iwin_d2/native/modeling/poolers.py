"""Features of boxes out of a pyramid."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..layers import ROIAlign, cat, nonzero_tuple
from ..structures import Boxes

__all__ = ["ROIPooler"]


class ROIPooler(nn.Module):
    """Cut each box out of the pyramid level that suits its size.

    Args:
        output_size: side of the result, or (height, width).
        scales: of each level, 1 / stride, from fine to coarse; each half the one before.
        sampling_ratio: samples per side of an output cell; 0 adapts it to the box.
        pooler_type: "ROIAlignV2" (aligned to pixel centres) or "ROIAlign" (half a cell off, as
            older models have it).
        canonical_box_size: a box of this size (square root of the area, in pixels) ...
        canonical_level: ... is taken from the level of stride 2 ** canonical_level; one level
            coarser for each doubling.

    Raises:
        ValueError: scales that are not such powers of 2, or a pooler_type that is not known.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        scales: Sequence[float],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: int = 224,
        canonical_level: int = 4,
    ):
        super().__init__()
        if isinstance(output_size, int):
            output_size = (output_size, output_size)
        if pooler_type not in ("ROIAlignV2", "ROIAlign"):
            raise ValueError(f"pooler_type is 'ROIAlignV2' or 'ROIAlign', got {pooler_type!r}")
        levels = [-math.log2(scale) for scale in scales]
        if any(not math.isclose(level, round(level), abs_tol=1e-6) for level in levels):
            raise ValueError(f"scales must be powers of 2, got {list(scales)}")
        levels = [round(level) for level in levels]
        if levels != list(range(levels[0], levels[0] + len(levels))):
            raise ValueError(f"scales must halve from level to level, got {list(scales)}")
        self.output_size = tuple(output_size)
        self.min_level, self.max_level = levels[0], levels[-1]
        self.canonical_box_size = canonical_box_size
        self.canonical_level = canonical_level
        aligned = pooler_type == "ROIAlignV2"
        self.level_poolers = nn.ModuleList(
            ROIAlign(self.output_size, scale, sampling_ratio, aligned) for scale in scales
        )

    def _assign_levels(self, boxes: Tensor) -> Tensor:
        """Return the index of the level for each of the boxes, Tensor[R]."""
        size = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
        # The small number keeps a box without extent from being minus infinity.
        level = torch.floor(
            self.canonical_level + torch.log2(size / self.canonical_box_size + 1e-8)
        )
        return level.clamp(self.min_level, self.max_level).long() - self.min_level

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """Pool from the levels, each Tensor[N, C, Hi, Wi], the boxes of each of the N images.

        Returns Tensor[R, C, *output_size] for the R boxes of all images, in their order.
        """
        if len(x) != len(self.level_poolers):
            raise AssertionError(f"{len(x)} feature maps for {len(self.level_poolers)} scales")
        if len(box_lists) != x[0].shape[0]:
            raise AssertionError(f"boxes of {len(box_lists)} images for {x[0].shape[0]} images")
        boxes = cat([boxes.tensor for boxes in box_lists])
        counts = torch.tensor([len(b) for b in box_lists], device=boxes.device)
        image = torch.arange(len(box_lists), device=boxes.device).repeat_interleave(counts)
        rois = torch.cat((image[:, None].to(boxes.dtype), boxes), dim=1)
        if len(x) == 1:
            return self.level_poolers[0](x[0], rois)
        levels = self._assign_levels(boxes)
        pooled = x[0].new_zeros((len(boxes), x[0].shape[1], *self.output_size))
        for level, (feature, pooler) in enumerate(zip(x, self.level_poolers)):
            index = nonzero_tuple(levels == level)[0]
            pooled.index_put_((index,), pooler(feature, rois[index]).to(pooled.dtype))
        return pooled
