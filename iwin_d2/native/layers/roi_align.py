"""torchvision's box operations under the names and defaults that the models use."""

import torchvision.ops
from torch import Tensor, nn

__all__ = ["ROIAlign", "batched_nms"]


class ROIAlign(nn.Module):
    """Cut boxes out of a feature map and resample each to one size.

    Args:
        output_size: (height, width) of the result.
        spatial_scale: cells of the feature map per unit of the boxes' coordinates.
        sampling_ratio: samples per side of an output cell; 0 adapts it to the box.
        aligned: shift by half a cell, so that cell centres meet pixel centres.
    """

    def __init__(
        self,
        output_size: tuple[int, int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = True,
    ):
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Resample from Tensor[N, C, H, W] the rois Tensor[R, 5]: image index, x0, y0, x1, y1.

        Returns Tensor[R, C, *output_size].
        """
        if rois.dim() != 2 or rois.size(1) != 5:
            raise AssertionError(f"rois have the shape [R, 5], got {tuple(rois.shape)}")
        return torchvision.ops.roi_align(
            input,
            rois.to(input.dtype),
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
        )

    def extra_repr(self) -> str:
        """Say the arguments."""
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Return which boxes stay after non-maximum suppression within each group, best first.

    Of boxes [N, 4] with the same `idxs` [N], one is dropped where it overlaps a better one, by
    `scores` [N], by an IoU of more than the threshold.
    """
    # In float32: half precision cannot tell large coordinates apart.
    return torchvision.ops.batched_nms(boxes.float(), scores, idxs, iou_threshold)
