"""From masks predicted inside boxes to masks of the whole image."""

import torch
from torch import Tensor

__all__ = ["paste_masks_in_image"]

# Values of float32 that one step may hold in its result.
_CHUNK_VALUES = 64 * 1024 * 1024


def _resampling_weights(low: Tensor, high: Tensor, begin: int, end: int, cells: int) -> Tensor:
    """Return the weights [N, end - begin, cells] that resample values to pixels begin ... end - 1.

    The `cells` values lie evenly between `low` and `high` (pixels, [N]). Linear between the cells'
    centres and falling to zero outside, as if zeros lay around.
    """
    centers = torch.arange(begin, end, device=low.device, dtype=low.dtype) + 0.5
    # A box without extent must not divide by zero.
    pixels_per_cell = ((high - low) / cells).clamp(min=1e-6)
    source = (centers - low[:, None]) / pixels_per_cell[:, None] - 0.5
    distance = source[:, :, None] - torch.arange(cells, device=low.device, dtype=low.dtype)
    return distance.abs_().neg_().add_(1).clamp_(min=0)


def _paste(masks: Tensor, boxes: Tensor, region: tuple[int, int, int, int]) -> Tensor:
    """Resample N masks to their boxes and return what lies in the region (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = region
    rows = _resampling_weights(boxes[:, 1], boxes[:, 3], y0, y1, masks.shape[1])
    columns = _resampling_weights(boxes[:, 0], boxes[:, 2], x0, x1, masks.shape[2])
    # Bilinear resampling is separable: two small matrix products instead of a gather a pixel.
    return rows @ masks @ columns.transpose(1, 2)


def _regions(boxes: Tensor, height: int, width: int) -> list[list[int]]:
    """Return for each box the pixels (x0, y0, x1, y1) that its mask can reach."""
    limits = boxes.new_tensor([width, height])
    low = (boxes[:, :2].floor() - 1).clamp(min=0).minimum(limits)
    high = (boxes[:, 2:].ceil() + 1).clamp(min=0).minimum(limits)
    return torch.cat([low, high.maximum(low)], dim=1).long().tolist()


@torch.no_grad()
def paste_masks_in_image(
    masks: Tensor, boxes, image_shape: tuple[int, int], threshold: float = 0.5
) -> Tensor:
    """Paste masks that were predicted inside boxes into the image.

    Args:
        masks: Tensor[N, M, M] of probabilities.
        boxes: Boxes or Tensor[N, 4], in pixels of the image.
        image_shape: the image's (height, width).
        threshold: probability from which a pixel belongs to the mask. A negative one asks for the
            probabilities themselves.

    Returns:
        Tensor[N, height, width]: bool, or with a negative threshold uint8 from 0 to 255.
    """
    if masks.shape[-1] != masks.shape[-2]:
        raise AssertionError(f"only square masks can be pasted, got {tuple(masks.shape)}")
    boxes = (boxes if isinstance(boxes, Tensor) else boxes.tensor).to(masks.device).float()
    if len(boxes) != len(masks):
        raise AssertionError(f"{len(boxes)} boxes for {len(masks)} masks")
    height, width = image_shape
    dtype = torch.bool if threshold >= 0 else torch.uint8
    pasted = torch.zeros(len(masks), height, width, dtype=dtype, device=masks.device)

    def finish(probabilities: Tensor) -> Tensor:
        return probabilities >= threshold if threshold >= 0 else (probabilities * 255).to(dtype)

    # Half precision would move the outlines.
    with torch.autocast(masks.device.type, enabled=False):
        masks = masks.float()
        # What reaches further than a pixel beyond the box is below half, so it is left out there.
        if masks.device.type == "cpu":  # each mask on its own box's pixels only
            for i, (x0, y0, x1, y1) in enumerate(_regions(boxes, height, width)):
                part = _paste(masks[i : i + 1], boxes[i : i + 1], (x0, y0, x1, y1))
                pasted[i, y0:y1, x0:x1] = finish(part[0])
        else:  # many masks at once, but never so many that memory runs out
            step = max(1, _CHUNK_VALUES // max(1, height * width))
            for i in range(0, len(masks), step):
                part = _paste(masks[i : i + step], boxes[i : i + step], (0, 0, width, height))
                pasted[i : i + step] = finish(part)
    return pasted
