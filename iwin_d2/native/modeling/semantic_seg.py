"""Semantic segmentation: a class for every pixel, by a head on feature maps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from fvcore.nn import weight_init
from torch import Tensor, nn

from ..layers import Conv2d, ShapeSpec
from ..structures import ImageList
from .backbone import Backbone, make_conv

_BILINEAR = {"mode": "bilinear", "align_corners": False}


def sem_seg_postprocess(
    result: Tensor, img_size: tuple[int, int], output_height: int, output_width: int
) -> Tensor:
    """Bring scores to the size that the user wants, usually that of the original image.

    Takes Tensor[C, H, W] of a batch's size, of which `img_size`, (height, width), was the image.
    Returns Tensor[C, output_height, output_width].
    """
    height, width = img_size
    cut = result[:, :height, :width]
    return F.interpolate(cut[None], size=(output_height, output_width), **_BILINEAR)[0]


class SemanticSegmentor(nn.Module):
    """Feature maps, then scores of classes for every pixel.

    `sem_seg_head` maps (features, targets or None) to (scores Tensor[N, C, H, W] of the batch's
    size, losses by name); its `ignore_value` fills targets up to that size.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ):
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            # Not saved: they are part of the config.
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model lies; inputs are brought there."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]):
        """Return a dict of losses in training, else for each image a dict with "sem_seg".

        Takes for each image a dict of "image", Tensor[C, H, W]; in training "sem_seg", its classes
        Tensor[H, W]; else optionally "height" and "width", the size of Tensor[C, height, width],
        the scores to give, if it is not the image's.
        """
        pixels = [x["image"].to(self.device) for x in batched_inputs]
        images = self._batch([(x - self.pixel_mean) / self.pixel_std for x in pixels], 0.0)
        targets = None
        if "sem_seg" in batched_inputs[0]:
            labels = [x["sem_seg"].to(self.device) for x in batched_inputs]
            targets = self._batch(labels, self.sem_seg_head.ignore_value).tensor
        results, losses = self.sem_seg_head(self.backbone(images.tensor), targets)
        if self.training:
            return losses
        outputs = []
        for result, x, size in zip(results, batched_inputs, images.image_sizes):
            wanted = x.get("height", size[0]), x.get("width", size[1])
            outputs.append({"sem_seg": sem_seg_postprocess(result, size, *wanted)})
        return outputs

    def _batch(self, tensors: Sequence[Tensor], fill: float) -> ImageList:
        """Pad as the backbone wants it."""
        constraints = self.backbone.padding_constraints
        return ImageList.from_tensors(tensors, self.backbone.size_divisibility, fill, constraints)


class SemSegFPNHead(nn.Module):
    """The head of Panoptic FPN (Kirillov et al. 2019): every level upsampled to one, and summed.

    Levels coarser than `common_stride` are convolved before each doubling, and the sum is
    classified. `norm` is that of the convolutions to `conv_dims` channels.
    """

    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        num_classes: int,
        conv_dims: int,
        common_stride: int,
        loss_weight: float = 1.0,
        norm: str | Callable | None = None,
        ignore_value: int = -1,
    ):
        super().__init__()
        if not input_shape:
            raise ValueError("SemSegFPNHead wants at least one feature map: input_shape is empty")
        self.in_features = sorted(input_shape, key=lambda name: input_shape[name].stride)
        self.common_stride, self.loss_weight = common_stride, loss_weight
        self.ignore_value = ignore_value
        self.scale_heads = []  # the same modules as the attributes named after the maps
        for name in self.in_features:
            channels, stride = input_shape[name].channels, input_shape[name].stride
            layers: list[nn.Module] = []
            for _ in range(max((stride // common_stride).bit_length() - 1, 1)):
                layers.append(make_conv(channels, conv_dims, 3, norm, activation=F.relu))
                weight_init.c2_msra_fill(layers[-1])
                if stride != common_stride:
                    layers.append(nn.Upsample(scale_factor=2, **_BILINEAR))
                channels = conv_dims
            self.scale_heads.append(nn.Sequential(*layers))
            self.add_module(name, self.scale_heads[-1])
        self.predictor = Conv2d(conv_dims, num_classes, kernel_size=1)
        weight_init.c2_msra_fill(self.predictor)

    def forward(self, features: dict[str, Tensor], targets: Tensor | None = None):
        """Return (None, losses) in training, else (scores Tensor[N, C, H, W], {})."""
        scores = self.layers(features)
        if self.training:
            return None, self.losses(scores, targets)
        return F.interpolate(scores, scale_factor=self.common_stride, **_BILINEAR), {}

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        """Map the levels to scores at the common stride."""
        scaled = [head(features[name]) for name, head in zip(self.in_features, self.scale_heads)]
        total = scaled[0]
        for other in scaled[1:]:
            total = total + other
        return self.predictor(total)

    def losses(self, predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of the upsampled scores and the classes Tensor[N, H, W]."""
        scores = F.interpolate(predictions.float(), scale_factor=self.common_stride, **_BILINEAR)
        loss = F.cross_entropy(scores, targets, ignore_index=self.ignore_value)
        return {"loss_sem_seg": loss * self.loss_weight}
