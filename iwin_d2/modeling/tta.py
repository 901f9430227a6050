"""Test-time augmentation of two-stage detectors: an image seen in several sizes and flipped."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..d2.layers import batched_nms
from ..d2.modeling import GeneralizedRCNN, detector_postprocess
from ..d2.structures import Boxes, Instances
from ..errors import ConfigError

__all__ = ["SCALES", "DetectorWithTTA"]

# Of an image whose short side is 800 pixels, these are Detectron2's 400, 500, ..., 1200.
SCALES = (0.5, 0.625, 0.75, 0.875, 1.0, 1.125, 1.25, 1.375, 1.5)

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class View:
    """One way of seeing an image: resized by `scale`, then flipped from left to right or not."""

    scale: float
    flipped: bool

    def size_of(self, size: Size) -> Size:
        """The size, in pixels, that an image of `size` has in this view."""
        height, width = (max(round(side * self.scale), 1) for side in size)
        return height, width

    def of_image(self, image: Tensor) -> Tensor:
        """Resize and flip Tensor[C, H, W]; one that keeps its size keeps its type, too."""
        size = tuple(image.shape[-2:])
        if self.size_of(size) != size:
            image = F.interpolate(
                image[None].float(), self.size_of(size), mode="bilinear", antialias=True
            )[0]
        return image.flip(-1) if self.flipped else image

    def of_boxes(self, boxes: Tensor, size: Size) -> Tensor:
        """Bring boxes Tensor[N, 4] on an image of `size` into this view of it."""
        seen = self.size_of(size)
        boxes = boxes * _per_coordinate(boxes, seen[1] / size[1], seen[0] / size[0])
        return _flip(boxes, seen[1]) if self.flipped else boxes

    def boxes_back(self, boxes: Tensor, size: Size) -> Tensor:
        """Bring boxes Tensor[N, 4] in this view of an image of `size` back onto the image."""
        seen = self.size_of(size)
        boxes = _flip(boxes, seen[1]) if self.flipped else boxes
        return boxes * _per_coordinate(boxes, size[1] / seen[1], size[0] / seen[0])


class DetectorWithTTA(nn.Module):
    """A two-stage detector that sees each image in several sizes and flipped.

    As in Detectron2's `GeneralizedRCNNWithTTA`: the boxes that are found in all views are united by
    non-maximum suppression, with the detector's own threshold and limit; then the masks of what
    remains are predicted in every view, and their probabilities averaged.

    Takes and returns what the detector does in inference, and is in its mode, training or not. Each
    view is one pass of the whole batch (two for masks, which are looked for where the boxes of all
    views are), one after the other: memory is that of the largest view. An image in its own size is
    the very one that the detector itself would see.
    """

    def __init__(self, model: nn.Module, scales: Sequence[float] = SCALES, flip: bool = True):
        """Wrap a detector.

        Args:
            model: a `GeneralizedRCNN` of boxes or of boxes and masks, with whatever heads.
            scales: the sizes, relative to the images that the detector is given.
            flip: whether to see each size flipped, too.

        Raises:
            ConfigError: for a model of another kind; says which.
            ValueError: `scales` are none, or not all above 0.
        """
        super().__init__()
        if not scales or not all(0 < scale < math.inf for scale in scales):
            raise ValueError(f"scales must be numbers above 0, got {list(scales)}")
        _check_supported(model)
        self.model = model
        self.training = model.training
        self.views = [
            View(float(scale), flipped)
            for scale in scales
            for flipped in ((False, True) if flip else (False,))
        ]

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Detect in a batch of images.

        Args:
            batched_inputs: for each image a dict of "image", Tensor[C, H, W], and optionally
                "height" and "width", the size to give detections in if it is not the image's.

        Returns:
            for each image {"instances": Instances} with pred_boxes, scores, pred_classes and, of a
            detector with masks, pred_masks, bool [N, height, width].
        """
        if self.training:
            raise RuntimeError("test-time augmentation is for a model in eval mode")
        detections = self._detect_boxes(batched_inputs)
        if _predicts_masks(self.model.roi_heads):
            self._add_masks(detections, batched_inputs)
        outputs = []
        for instances, item in zip(detections, batched_inputs):
            height, width = instances.image_size
            size = item.get("height", height), item.get("width", width)
            outputs.append({"instances": detector_postprocess(instances, *size)})
        return outputs

    def view_sizes(self, size: Size) -> list[Size]:
        """The sizes in which an image of `size` is seen, in pixels."""
        return [view.size_of(size) for view in self.views]

    def _detect_boxes(self, batched_inputs: list[dict[str, Any]]) -> list[Instances]:
        """The detections of all views together, in pixels of the images as they are given."""
        sizes = [_size(item) for item in batched_inputs]
        views = [self._boxes_in(view, batched_inputs) for view in self.views]
        return [self._unite(list(found), size) for found, size in zip(zip(*views), sizes)]

    def _boxes_in(self, view: View, batched_inputs: list[dict[str, Any]]) -> list[Instances]:
        """What is found in one view, in pixels of the images as they are given."""
        images, features = self._look(view, batched_inputs)
        proposals, _ = self.model.proposal_generator(images, features, None)
        with _boxes_alone(self.model.roi_heads):
            detections, _ = self.model.roi_heads(images, features, proposals, None)
        for instances, item in zip(detections, batched_inputs):
            boxes = Boxes(view.boxes_back(instances.pred_boxes.tensor, _size(item)))
            boxes.clip(_size(item))
            instances.pred_boxes = boxes
        return detections

    def _unite(self, views: list[Instances], size: Size) -> Instances:
        """The best of the detections of one image, best first."""
        predictor = _last_predictor(self.model.roi_heads)
        boxes = torch.cat([x.pred_boxes.tensor for x in views])
        scores = torch.cat([x.scores for x in views])
        classes = torch.cat([x.pred_classes for x in views])
        kept = batched_nms(boxes, scores, classes, predictor.test_nms_thresh)
        if predictor.test_topk_per_image >= 0:
            kept = kept[: predictor.test_topk_per_image]
        return Instances(
            size, pred_boxes=Boxes(boxes[kept]), scores=scores[kept], pred_classes=classes[kept]
        )

    def _add_masks(self, detections: list[Instances], batched_inputs: list[dict[str, Any]]) -> None:
        """Set pred_masks, the mean probabilities of all views, Tensor[N, 1, M, M]."""
        if not any(len(instances) for instances in detections):
            for instances in detections:
                instances.pred_masks = instances.pred_boxes.tensor.new_zeros(0, 1, 1, 1)
            return
        sums: list[Tensor | float] = [0.0] * len(detections)
        for view in self.views:
            masks = self._masks_in(view, batched_inputs, detections)
            sums = [total + mask for total, mask in zip(sums, masks)]
        for instances, total in zip(detections, sums):
            instances.pred_masks = total / len(self.views)

    def _masks_in(
        self, view: View, batched_inputs: list[dict[str, Any]], detections: list[Instances]
    ) -> list[Tensor]:
        """The masks of each image's detections as one view shows them, Tensor[N, 1, M, M]."""
        # Looking once more: the maps of all views would take too much memory to keep.
        _, features = self._look(view, batched_inputs)
        seen = [_seen(instances, view) for instances in detections]
        seen = _predict_masks(self.model.roi_heads, features, seen)
        masks = [instances.pred_masks.float() for instances in seen]
        return [mask.flip(-1) for mask in masks] if view.flipped else masks

    def _look(self, view: View, batched_inputs: list[dict[str, Any]]):
        """The images of a batch in a view, as an ImageList, and their feature maps."""
        device = self.model.device
        images = self.model.preprocess_image(
            [{**item, "image": view.of_image(item["image"].to(device))} for item in batched_inputs]
        )
        return images, self.model.backbone(images.tensor)


def _check_supported(model: nn.Module) -> None:
    """Raise ConfigError for a model that does not work as `DetectorWithTTA` takes it to."""
    kind = type(model)
    heads = getattr(model, "roi_heads", None)
    plain = (
        isinstance(model, GeneralizedRCNN)
        and kind.forward is GeneralizedRCNN.forward
        and kind.inference is GeneralizedRCNN.inference
        and model.proposal_generator is not None
        and hasattr(_last_predictor(heads), "test_nms_thresh")
        and hasattr(_last_predictor(heads), "test_topk_per_image")
    )
    if not plain or getattr(heads, "keypoint_on", False):
        parts = kind.__name__ + ("" if heads is None else f" with {type(heads).__name__}")
        raise ConfigError(
            "Test-time augmentation is for two-stage detectors of boxes and masks "
            f"(GeneralizedRCNN), but the model is a {parts}: set "
            "train.test_time_augmentation.enabled=False."
        )


def _last_predictor(heads: nn.Module) -> nn.Module | None:
    """What selects the detections: the box predictor, of a cascade the last one."""
    predictor = getattr(heads, "box_predictor", None)
    return predictor[-1] if isinstance(predictor, nn.ModuleList) else predictor


def _predicts_masks(heads: nn.Module) -> bool:
    return bool(getattr(heads, "mask_on", False))


@contextmanager
def _boxes_alone(heads: nn.Module) -> Iterator[None]:
    """Within the block, the heads predict no masks."""
    if not _predicts_masks(heads):
        yield
        return
    heads.mask_on = False
    try:
        yield
    finally:
        heads.mask_on = True


def _predict_masks(
    heads: nn.Module, features: dict[str, Tensor], instances: list[Instances]
) -> list[Instances]:
    """Add pred_masks to instances that have pred_boxes and pred_classes."""
    if hasattr(heads, "forward_with_given_boxes"):
        return heads.forward_with_given_boxes(features, instances)
    maps = [features[name] for name in heads.mask_in_features]
    return heads.mask_head(heads.mask_pooler(maps, [x.pred_boxes for x in instances]), instances)


def _seen(instances: Instances, view: View) -> Instances:
    """Boxes and classes of detections on an image, as they are in a view of it."""
    size = instances.image_size
    boxes = Boxes(view.of_boxes(instances.pred_boxes.tensor, size))
    return Instances(view.size_of(size), pred_boxes=boxes, pred_classes=instances.pred_classes)


def _size(item: dict[str, Any]) -> Size:
    height, width = item["image"].shape[-2:]
    return height, width


def _per_coordinate(boxes: Tensor, x: float, y: float) -> Tensor:
    """One factor for each of x0, y0, x1, y1."""
    return boxes.new_tensor([x, y, x, y])


def _flip(boxes: Tensor, width: int) -> Tensor:
    """Mirror boxes Tensor[N, 4] in an image of that width."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack([width - x1, y0, width - x0, y1], dim=-1)
