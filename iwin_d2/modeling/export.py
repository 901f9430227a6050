"""Detectors and segmenters as functions of tensors alone, which torch.export and ONNX can take.

A detector branches on what it has found, and deals in lists of Instances. These modules compute the
same with tensors: where the number of boxes depends on the image, they go on with the most there
can be and mark those that count.
"""

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchvision.ops
from torch import Tensor, nn

from ..d2.modeling import (
    GeneralizedRCNN,
    LastLevelMaxPool,
    SemanticSegmentor,
    StandardROIHeads,
)
from ..errors import ConfigError
from .cascade import CascadeMaskROIHeads

__all__ = ["ImageToDetections", "ImagesToMaps", "ImagesToScores"]

Size = tuple[int, int]  # height, width; symbols while exporting


class ImagesToMaps(nn.Module):
    """A model's backbone, and FPN if it has one, on images as they are: normalises and pads.

    Works on a copy of the detector's weights.
    """

    def __init__(self, model: nn.Module):
        """Take over the parts of a detector.

        Args:
            model: with `backbone`, `pixel_mean` and `pixel_std`, as Detectron2's detectors.

        Raises:
            ConfigError: it has no such parts.
        """
        super().__init__()
        lacking = [n for n in ("backbone", "pixel_mean", "pixel_std") if not hasattr(model, n)]
        if lacking:
            raise ConfigError(
                f"The model is a {type(model).__name__} without {', '.join(lacking)}: only "
                "detectors and segmenters that have these can be exported."
            )
        self.backbone = copy.deepcopy(model.backbone)
        if isinstance(getattr(self.backbone, "top_block", None), LastLevelMaxPool):
            self.backbone.top_block = _Subsample()
        self.register_buffer("pixel_mean", model.pixel_mean.clone())
        self.register_buffer("pixel_std", model.pixel_std.clone())
        self._step = max(self.backbone.size_divisibility, 1)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps of a batch.

        Args:
            images: Tensor[B, C, H, W], 0 to 255, with the detector's order of channels.

        Returns:
            the maps by their names, Tensor[B, C', H', W'], of the images padded with the mean
            colour, to the right and below, to the next multiple that the backbone asks for.
        """
        height, width = images.shape[-2:]
        images = (images - self.pixel_mean) / self.pixel_std
        padding = (0, self._padded(width) - width, 0, self._padded(height) - height)
        return self.backbone(F.pad(images, padding))

    def _padded(self, side: int) -> int:
        # In these terms, PyTorch can divide a symbol without a remainder.
        return self._step * ((side + self._step - 1) // self._step)


class ImagesToScores(nn.Module):
    """A semantic segmenter on images as they are, each as a whole: normalises and pads.

    Works on a copy of the segmenter's weights.
    """

    def __init__(self, model: nn.Module):
        """Take over the parts of a segmenter.

        Args:
            model: with a `sem_seg_head` on a backbone, as Detectron2's SemanticSegmentor.

        Raises:
            ConfigError: it has no such parts.
        """
        super().__init__()
        if not isinstance(model, SemanticSegmentor):
            raise ConfigError(
                "A whole segmenter can be exported if it is a SemanticSegmentor, but the model is "
                f"a {type(model).__name__}: export its backbone alone."
            )
        self.maps = ImagesToMaps(model)
        self.head = copy.deepcopy(model.sem_seg_head)
        if getattr(self.head, "auxiliary", None) is not None:
            self.head.auxiliary = None  # of training alone
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the scores of a batch.

        Args:
            images: Tensor[B, C, H, W], 0 to 255, with the segmenter's order of channels.

        Returns:
            {"sem_seg": logits Tensor[B, K, H, W]}.
        """
        scores, _ = self.head(self.maps(images))
        # Of a slice, PyTorch asks for a proof that the scores reach so far.
        rows, columns = (torch.arange(side, device=scores.device) for side in images.shape[-2:])
        return {"sem_seg": scores[:, :, rows[:, None], columns]}


class _Subsample(nn.Module):
    """`LastLevelMaxPool` by indexing: of a pooling, PyTorch asks whether the side is odd."""

    num_levels = 1
    in_feature = "p5"

    def forward(self, x: Tensor) -> list[Tensor]:
        rows, columns = (
            torch.arange((side + 1) // 2, device=x.device) * 2 for side in x.shape[-2:]
        )
        return [x[:, :, rows[:, None], columns]]


class ImageToDetections(nn.Module):
    """A whole two-stage detector on one image: Faster, Mask or Cascade (Mask) R-CNN.

    Works on a copy of the detector's weights. What it finds is what the detector does, but for
    rounding, before that is brought to another size and masks are pasted.
    """

    def __init__(self, model: nn.Module, nms_dtype: torch.dtype = torch.float64):
        """Take over the parts of a detector.

        Args:
            model: a GeneralizedRCNN with StandardROIHeads or CascadeMaskROIHeads.
            nms_dtype: in which non-maximum suppression compares boxes. ONNX only has float32, in
                which classes by the hundred leave fractions of a pixel unseen.

        Raises:
            ConfigError: it is another one.
        """
        super().__init__()
        heads = getattr(model, "roi_heads", None)
        kinds = (StandardROIHeads, CascadeMaskROIHeads)
        if type(model) is not GeneralizedRCNN or type(heads) not in kinds:
            kind = type(model).__name__
            parts = f"{kind} with {type(heads).__name__}" if heads is not None else kind
            raise ConfigError(
                "A whole detector can be exported if it is a GeneralizedRCNN with StandardROIHeads "
                f"or CascadeMaskROIHeads, but the model is a {parts}: export its backbone alone."
            )
        if getattr(heads, "keypoint_on", False):
            raise ConfigError("Keypoints cannot be exported: export the backbone alone.")
        self.nms_dtype = nms_dtype
        self.maps = ImagesToMaps(model)
        self.rpn = copy.deepcopy(model.proposal_generator)
        self.heads = copy.deepcopy(heads)
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Detect in one image.

        Args:
            image: Tensor[C, H, W], 0 to 255, with the detector's order of channels.

        Returns:
            "boxes" Tensor[N, 4], (x0, y0, x1, y1) in pixels of the image, "scores" Tensor[N],
            "classes" Tensor[N] and, of a detector with masks, "masks", probabilities Tensor[N, M,
            M] inside the boxes; best first.
        """
        size = image.shape[-2], image.shape[-1]
        maps = self.maps(image[None])
        proposals, counts = self._propose(maps, size)
        logits, boxes = self._judge(maps, proposals, size)
        boxes, scores, classes = self._select(logits, boxes, counts, size)
        found = torch.isfinite(scores).nonzero()[:, 0]
        results = {"boxes": boxes[found], "scores": scores[found], "classes": classes[found]}
        if self.heads.mask_on:
            results["masks"] = self._masks(maps, boxes, classes)[found]
        return results

    def _propose(self, maps: dict[str, Tensor], size: Size) -> tuple[Tensor, Tensor]:
        """The proposals, Tensor[P, 4], best first, and which of them are any, bool Tensor[P]."""
        features = [maps[name] for name in self.rpn.in_features]
        boxes, scores, levels = [], [], []
        anchors = self.rpn.anchor_generator(features)
        most = self.rpn.pre_nms_topk[False]
        for level, (logits, deltas, own) in enumerate(zip(*self.rpn.rpn_head(features), anchors)):
            # Small maps have fewer anchors: of such as never win there are always enough.
            logits = F.pad(logits[0].permute(1, 2, 0).flatten(), (0, most), value=-math.inf)
            deltas = F.pad(deltas[0].permute(1, 2, 0).reshape(-1, 4), (0, 0, 0, most))
            top, index = logits.topk(most)
            own = F.pad(own.tensor, (0, 0, 0, most))[index]
            boxes.append(self.rpn.box2box_transform.apply_deltas(deltas[index], own))
            scores.append(top)
            levels.append(torch.full_like(index, level))
        boxes, scores, levels = torch.cat(boxes), torch.cat(scores), torch.cat(levels)
        valid = torch.isfinite(boxes).all(1) & torch.isfinite(scores)
        boxes = _clip(torch.where(valid[:, None], boxes, 0.0), size)
        valid = valid & ((boxes[:, 2:] - boxes[:, :2]) > self.rpn.min_box_size).all(1)
        scores = torch.where(valid, scores, -math.inf)
        kept = self._suppress(boxes, scores, levels, self.rpn.nms_thresh, size)
        survivors = torch.full_like(scores, -math.inf).index_copy(0, kept, scores[kept])
        top, index = survivors.topk(min(self.rpn.post_nms_topk[False], len(levels)))
        return boxes[index], torch.isfinite(top)

    def _judge(
        self, maps: dict[str, Tensor], proposals: Tensor, size: Size
    ) -> tuple[Tensor, Tensor]:
        """Of P proposals, the logits Tensor[P, K + 1] and the boxes Tensor[P, K or 1, 4]."""
        heads, predictors = _stages(self.heads.box_head), _stages(self.heads.box_predictor)
        features = [maps[name] for name in self.heads.box_in_features]
        all_logits = []
        for stage, (head, predictor) in enumerate(zip(heads, predictors)):
            pooled = _pool(self.heads.box_pooler, features, proposals)
            logits, deltas = predictor(head(pooled))
            all_logits.append(logits)
            transform = predictor.box2box_transform
            boxes = _clip(transform.apply_deltas(deltas, proposals).unflatten(1, (-1, 4)), size)
            if stage + 1 < len(heads):
                # As the cascade refines: by the best class.
                best = logits[:, :-1].argmax(1) if boxes.shape[1] > 1 else logits[:, 0].long() * 0
                proposals = boxes[torch.arange(len(boxes), device=boxes.device), best]
        return torch.stack(all_logits).mean(0), boxes

    def _select(
        self, logits: Tensor, boxes: Tensor, counts: Tensor, size: Size
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The D best: boxes Tensor[D, 4], scores and classes Tensor[D]; -inf where there is none.

        `counts` tells, Tensor[P] of bool, which proposals do.
        """
        predictor = _stages(self.heads.box_predictor)[-1]
        scores = logits.softmax(-1)[:, :-1]
        valid = counts & torch.isfinite(boxes).flatten(1).all(1) & torch.isfinite(logits).all(1)
        row, cls = ((scores > predictor.test_score_thresh) & valid[:, None]).nonzero().unbind(1)
        boxes = boxes.expand(-1, scores.shape[1], -1)
        kept = self._suppress(
            boxes[row, cls], scores[row, cls], cls, predictor.test_nms_thresh, size
        )
        place = (row * scores.shape[1] + cls)[kept]
        flat = scores.flatten()
        survivors = torch.full_like(flat, -math.inf).index_copy(0, place, flat[place])
        most = predictor.test_topk_per_image
        top, index = survivors.topk(min(most, len(flat)) if most >= 0 else len(flat))
        return boxes.flatten(0, 1)[index], top, index % scores.shape[1]

    def _suppress(
        self, boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, size: Size
    ) -> Tensor:
        """Non-maximum suppression within groups; the indices of those that stay, best first.

        torchvision's `batched_nms` chooses its way by the number of boxes, which is not known here.
        """
        height, width = size
        # Side by side, the groups do not meet.
        apart = boxes.to(self.nms_dtype) + (groups * (height + width))[:, None]
        return torchvision.ops.nms(apart, scores.to(self.nms_dtype), threshold)

    def _masks(self, maps: dict[str, Tensor], boxes: Tensor, classes: Tensor) -> Tensor:
        """Probabilities Tensor[D, M, M] of the masks of detections."""
        features = [maps[name] for name in self.heads.mask_in_features]
        pooled = _pool(self.heads.mask_pooler, features, boxes)
        masks = [head.layers(pooled).sigmoid() for head in _stages(self.heads.mask_head)]
        masks = torch.stack(masks).mean(0)
        if masks.shape[1] == 1:  # one mask serves all classes
            return masks[:, 0]
        return masks[torch.arange(len(masks), device=masks.device), classes]


def _stages(part: nn.Module) -> Sequence[nn.Module]:
    """The parts of a cascade's stages, or the only one."""
    return part if isinstance(part, nn.ModuleList) else [part]


def _clip(boxes: Tensor, size: Size) -> Tensor:
    """Cut boxes Tensor[..., 4] to an image."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    height, width = size
    x0, x1 = x0.clamp(0, width), x1.clamp(0, width)
    y0, y1 = y0.clamp(0, height), y1.clamp(0, height)
    return torch.stack([x0, y0, x1, y1], -1)


def _pool(pooler: nn.Module, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """What an `ROIPooler` does for one image: Tensor[R, C, M, M] of boxes Tensor[R, 4]."""
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    doublings = torch.log2(side / pooler.canonical_box_size + 1e-8)
    levels = (pooler.canonical_level + doublings).floor().clamp(pooler.min_level, pooler.max_level)
    levels = levels.long() - pooler.min_level
    rois = F.pad(boxes, (1, 0))  # all of image 0
    pooled = boxes.new_zeros(len(boxes), maps[0].shape[1], *pooler.output_size)
    for level, (features, align) in enumerate(zip(maps, pooler.level_poolers)):
        index = (levels == level).nonzero()[:, 0]
        cut = torchvision.ops.roi_align(
            features,
            rois[index],
            align.output_size,
            align.spatial_scale,
            align.sampling_ratio,
            align.aligned,
        )
        pooled = pooled.index_copy(0, index, cut)
    return pooled
