"""Detectors that first propose boxes and then judge them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..structures import ImageList, Instances
from .backbone import Backbone
from .postprocessing import detector_postprocess

__all__ = ["GeneralizedRCNN"]


class GeneralizedRCNN(nn.Module):
    """Feature maps, proposals, then per-box predictions.

    `pixel_mean` and `pixel_std` normalise each image channel; `input_format` says what the channels
    are ("RGB", "BGR"); `vis_period` must be 0, drawing during training is not offered.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generator: nn.Module,
        roi_heads: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str | None = None,
        vis_period: int = 0,
    ):
        super().__init__()
        if vis_period > 0:
            raise ValueError("vis_period must be 0: drawing during training is not offered")
        self.backbone = backbone
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.input_format = input_format
        self.vis_period = vis_period
        mean, std = (torch.tensor(v, dtype=torch.float32) for v in (pixel_mean, pixel_std))
        if mean.shape != std.shape:
            raise AssertionError(f"pixel_mean {list(mean)} and pixel_std {list(std)} must match")
        # Not saved: they are part of the config.
        self.register_buffer("pixel_mean", mean.view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", std.view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model lies; inputs are brought there."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]):
        """Return losses in training, else detections.

        Args:
            batched_inputs: for each image a dict of
                "image": Tensor[C, H, W], in `input_format`;
                "instances": in training, the ground truth;
                "height", "width": outside training, the size to give detections in, if it is not
                that of the image.

        Returns:
            In training a dict of losses; else for each image a dict with "instances".
        """
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        gt_instances = [x["instances"].to(self.device) for x in batched_inputs]
        features = self.backbone(images.tensor)
        proposals, proposal_losses = self.proposal_generator(images, features, gt_instances)
        _, detector_losses = self.roi_heads(images, features, proposals, gt_instances)
        return {**detector_losses, **proposal_losses}

    def inference(
        self,
        batched_inputs: list[dict[str, Any]],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ):
        """Detect.

        Args:
            batched_inputs: as in `forward`.
            detected_instances: for each image `pred_boxes` and `pred_classes` that are already
                known; only what else the heads predict (masks) is then computed.
            do_postprocess: give dicts as `forward` does; else the Instances on the input's size.
        """
        if self.training:
            raise AssertionError("inference is for a model in eval mode")
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        if detected_instances is None:
            proposals, _ = self.proposal_generator(images, features, None)
            results, _ = self.roi_heads(images, features, proposals, None)
        else:
            detected_instances = [x.to(self.device) for x in detected_instances]
            results = self.roi_heads.forward_with_given_boxes(features, detected_instances)
        if not do_postprocess:
            return results
        return self._postprocess(results, batched_inputs, images.image_sizes)

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalise the images, pad them as the backbone wants it, and make a batch of them."""
        images = [x["image"].to(self.device, non_blocking=True) for x in batched_inputs]
        images: list[Tensor] = [(x - self.pixel_mean) / self.pixel_std for x in images]
        return ImageList.from_tensors(
            images,
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )

    @staticmethod
    def _postprocess(
        instances: list[Instances],
        batched_inputs: list[dict[str, Any]],
        image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Instances]]:
        """Give each image's detections in the size that its input asks for."""
        results = []
        for per_image, x, (height, width) in zip(instances, batched_inputs, image_sizes):
            size = x.get("height", height), x.get("width", width)
            results.append({"instances": detector_postprocess(per_image, *size)})
        return results
