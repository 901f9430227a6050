"""Layers and box and mask operations that the models are built from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchvision.ops
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d

# torch's own serve empty batches.
ConvTranspose2d = nn.ConvTranspose2d
Linear = nn.Linear


@dataclass
class ShapeSpec:
    """Shape of a feature map, `stride` in pixels of the input image; None where not known."""

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d`, then optionally a module under the name `norm`, and an activation."""

    def __init__(
        self,
        *args,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        if self.norm is not None:
            x = self.norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": nn.BatchNorm2d,
    # In a single process, and on CPU, torch's own falls back to plain batch norm.
    "SyncBN": nn.SyncBatchNorm,
    "FrozenBN": torchvision.ops.FrozenBatchNorm2d,
    "GN": lambda channels: nn.GroupNorm(32, channels),
    "LN": lambda channels: LayerNorm2d(channels, eps=1e-6),
}


def get_norm(norm: str | Callable[[int], nn.Module] | None, out_channels: int) -> nn.Module | None:
    """Build a norm named "BN", "SyncBN", "FrozenBN", "GN" or "LN", or made by a callable.

    "" and None give None.
    """
    if norm is None or norm == "":
        return None
    if isinstance(norm, str):
        if norm not in _NORMS:
            raise KeyError(f"norm {norm!r} is not known; use one of {sorted(_NORMS)} or a callable")
        norm = _NORMS[norm]
    return norm(out_channels)


class ROIAlign(torchvision.ops.RoIAlign):
    """Cut boxes out of a map and resample each to `output_size`; takes rois of any dtype."""

    def __init__(
        self,
        output_size: tuple[int, int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = True,
    ):
        super().__init__(output_size, spatial_scale, sampling_ratio, aligned)

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Resample Tensor[N, C, H, W] at rois Tensor[R, 5] of image index, x0, y0, x1, y1."""
        return super().forward(input, rois.to(input.dtype))


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression among boxes of the same `idxs`: those that stay, best first."""
    # In float32: half precision cannot tell large coordinates apart.
    return torchvision.ops.batched_nms(boxes.float(), scores, idxs, iou_threshold)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Concatenate; a single tensor is returned as it is, without a copy."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)


def cross_entropy(input: Tensor, target: Tensor, *, reduction: str = "mean", **kwargs) -> Tensor:
    """As `F.cross_entropy`, but the mean over no targets is 0 (with a gradient), not NaN."""
    if target.numel() == 0 and reduction == "mean":
        return input.sum() * 0.0
    return F.cross_entropy(input, target, reduction=reduction, **kwargs)


def nonzero_tuple(x: Tensor) -> tuple[Tensor, ...]:
    """Return the indices of the elements that are not zero, one tensor a dimension."""
    return x.nonzero(as_tuple=True)


# Values of float32 that one step of pasting may hold in its result.
_CHUNK_VALUES = 64 * 1024 * 1024


@torch.no_grad()
def paste_masks_in_image(
    masks: Tensor, boxes, image_shape: tuple[int, int], threshold: float = 0.5
) -> Tensor:
    """Paste probabilities [N, M, M], predicted inside boxes, into images: bool [N, height, width].

    `boxes` are Boxes or Tensor[N, 4] in pixels of the image, `image_shape` its (height, width).
    A negative threshold asks for the probabilities themselves, as uint8 from 0 to 255.
    """
    boxes = (boxes if isinstance(boxes, Tensor) else boxes.tensor).to(masks.device).float()
    height, width = image_shape
    dtype = torch.bool if threshold >= 0 else torch.uint8
    pasted = torch.zeros(len(masks), height, width, dtype=dtype, device=masks.device)

    def finish(probabilities: Tensor) -> Tensor:
        return probabilities >= threshold if threshold >= 0 else (probabilities * 255).to(dtype)

    # Half precision would move the outlines.
    with torch.autocast(masks.device.type, enabled=False):
        masks = masks.float()
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


def _regions(boxes: Tensor, height: int, width: int) -> list[list[int]]:
    """Return for each box the pixels (x0, y0, x1, y1) that its mask can reach.

    What reaches further than a pixel beyond the box is below half and left out.
    """
    limits = boxes.new_tensor([width, height])
    low = (boxes[:, :2].floor() - 1).clamp(min=0).minimum(limits)
    high = (boxes[:, 2:].ceil() + 1).clamp(min=0).minimum(limits)
    return torch.cat([low, high.maximum(low)], dim=1).long().tolist()


def _paste(masks: Tensor, boxes: Tensor, region: tuple[int, int, int, int]) -> Tensor:
    """Resample N masks to their boxes and return what lies in the region (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = region
    rows = _resampling_weights(boxes[:, 1], boxes[:, 3], y0, y1, masks.shape[1])
    columns = _resampling_weights(boxes[:, 0], boxes[:, 2], x0, x1, masks.shape[2])
    # Bilinear resampling is separable: two small matrix products instead of a gather a pixel.
    return rows @ masks @ columns.transpose(1, 2)


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
