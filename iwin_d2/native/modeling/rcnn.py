"""Detectors that first propose boxes and then judge them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..layers import paste_masks_in_image
from ..structures import Boxes, ImageList, Instances
from .backbone import Backbone


def detector_postprocess(
    results: Instances, output_height: int, output_width: int, mask_threshold: float = 0.5
) -> Instances:
    """Bring detections to the size that the user wants, usually that of the original image.

    Returns new Instances: boxes scaled and clipped, the empty ones dropped, `pred_masks` pasted
    into Tensor[N, output_height, output_width] of bool.
    """
    height, width = results.image_size
    results = Instances((output_height, output_width), **results.get_fields())
    name = "pred_boxes" if results.has("pred_boxes") else "proposal_boxes"
    boxes: Boxes = results.get(name).clone()  # the caller's own stay as they are
    boxes.scale(output_width / width, output_height / height)
    boxes.clip(results.image_size)
    results.set(name, boxes)
    results = results[boxes.nonempty()]
    if results.has("pred_masks"):
        results.pred_masks = paste_masks_in_image(
            results.pred_masks[:, 0],
            results.get(name),
            results.image_size,
            threshold=mask_threshold,
        )
    return results


class GeneralizedRCNN(nn.Module):
    """Feature maps, proposals, then per-box predictions.

    `pixel_mean` and `pixel_std` normalise each image channel; `input_format` says what the channels
    are ("RGB", "BGR").
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
    ):
        super().__init__()
        self.backbone = backbone
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.input_format = input_format
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
        """Return a dict of losses in training, else for each image a dict with "instances".

        Takes for each image a dict of "image", Tensor[C, H, W] in `input_format`; in training
        "instances", the ground truth; else optionally "height" and "width", the size to give
        detections in if it is not the image's.
        """
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        gt_instances = [x["instances"].to(self.device) for x in batched_inputs]
        features = self.backbone(images.tensor)
        proposals, proposal_losses = self.proposal_generator(images, features, gt_instances)
        _, detector_losses = self.roi_heads(images, features, proposals, gt_instances)
        return {**detector_losses, **proposal_losses}

    def inference(self, batched_inputs: list[dict[str, Any]], *, do_postprocess: bool = True):
        """Detect; without `do_postprocess`, return Instances on the input's size."""
        if self.training:
            raise AssertionError("inference is for a model in eval mode")
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        proposals, _ = self.proposal_generator(images, features, None)
        results, _ = self.roi_heads(images, features, proposals, None)
        if not do_postprocess:
            return results
        outputs = []
        for instances, x, (height, width) in zip(results, batched_inputs, images.image_sizes):
            size = x.get("height", height), x.get("width", width)
            outputs.append({"instances": detector_postprocess(instances, *size)})
        return outputs

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalise the images, pad them as the backbone wants it, and make a batch of them."""
        images = [x["image"].to(self.device, non_blocking=True) for x in batched_inputs]
        return ImageList.from_tensors(
            [(x - self.pixel_mean) / self.pixel_std for x in images],
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )
