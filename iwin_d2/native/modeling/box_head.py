"""Class and box refinement of proposals (Girshick 2015)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from fvcore.nn import weight_init
from torch import Tensor, nn

from ..layers import Linear, ShapeSpec, batched_nms, cat, cross_entropy, nonzero_tuple
from ..structures import Boxes, Instances
from ..utils.events import put_scalar
from .backbone import make_conv
from .targets import Box2BoxTransform, box_regression_loss, weigh_losses

# Logits [R, K + 1], background last; deltas [R, K * 4], or [R, 4] where all classes share one.
Predictions = tuple[Tensor, Tensor]


class FastRCNNConvFCHead(nn.Sequential):
    """3x3 convolutions, then fully connected layers, each followed by ReLU.

    Takes the shape (channels, height, width) of a box's features and the layers' output widths;
    convolutions with a norm have no bias. ValueError without any layer.
    """

    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        conv_dims: Sequence[int],
        fc_dims: Sequence[int],
        conv_norm="",
    ):
        super().__init__()
        if len(conv_dims) + len(fc_dims) == 0:
            raise ValueError("a box head needs a layer: conv_dims and fc_dims are both empty")
        channels, size = input_shape.channels, (input_shape.height, input_shape.width)
        for k, conv_dim in enumerate(conv_dims, start=1):
            conv = make_conv(channels, conv_dim, 3, conv_norm, activation=nn.ReLU())
            self.add_module(f"conv{k}", conv)
            channels = conv_dim
        for k, fc_dim in enumerate(fc_dims, start=1):
            if k == 1:
                self.add_module("flatten", nn.Flatten())
            self.add_module(f"fc{k}", Linear(channels * math.prod(size), fc_dim))
            self.add_module(f"fc_relu{k}", nn.ReLU())
            channels, size = fc_dim, ()
        self._output_size = (channels, *size)
        for layer in self:  # when all are made: one seed, one model everywhere
            if isinstance(layer, nn.Conv2d):
                weight_init.c2_msra_fill(layer)
            elif isinstance(layer, nn.Linear):
                weight_init.c2_xavier_fill(layer)

    @property
    def output_shape(self) -> ShapeSpec:
        """Shape of the output; height and width only without fully connected layers."""
        return ShapeSpec(*self._output_size)


def fast_rcnn_inference(
    boxes: list[Tensor],
    scores: list[Tensor],
    image_shapes: list[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[list[Instances], list[Tensor]]:
    """Turn the predictions for proposals into detections.

    Takes for each image the boxes of all classes [R, K * 4] or one for all [R, 4], probabilities
    [R, K + 1] with background last, and (height, width); a negative `topk_per_image` keeps all.
    Returns for each image Instances with `pred_boxes`, `scores` and `pred_classes`, best first, and
    the indices of the proposals that they come from.
    """
    thresholds = score_thresh, nms_thresh, topk_per_image
    results = [_infer_image(*image, *thresholds) for image in zip(boxes, scores, image_shapes)]
    return [instances for instances, _ in results], [kept for _, kept in results]


def _infer_image(
    boxes: Tensor,
    scores: Tensor,
    image_shape: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk: int,
) -> tuple[Instances, Tensor]:
    valid = torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores).all(dim=1)
    proposals = nonzero_tuple(valid)[0]
    boxes, scores = boxes[valid], scores[valid, :-1]  # without the background
    row, pred_class = nonzero_tuple(scores > score_thresh)
    scores = scores[row, pred_class]
    boxes = boxes.unflatten(1, (-1, 4))
    candidates = Boxes(boxes[row, pred_class if boxes.shape[1] > 1 else 0])
    candidates.clip(image_shape)
    keep = batched_nms(candidates.tensor, scores, pred_class, nms_thresh)
    keep = keep[:topk] if topk >= 0 else keep
    result = Instances(
        image_shape, pred_boxes=candidates[keep], scores=scores[keep], pred_classes=pred_class[keep]
    )
    return result, proposals[row[keep]]


@torch.no_grad()
def _log_classification_stats(logits: Tensor, gt_classes: Tensor) -> None:
    """Record the shares of proposals, and of objects among them, that are classified rightly."""
    if gt_classes.numel() == 0:
        return
    background = logits.shape[1] - 1
    predicted = logits.argmax(dim=1)
    foreground = gt_classes < background
    right = predicted == gt_classes
    missed = foreground & (predicted == background)
    # One transfer for all counts: each would wait for the device.
    counts = torch.stack([right, foreground, right & foreground, missed]).sum(dim=1)
    num_right, num_fg, num_fg_right, num_missed = counts.tolist()
    put_scalar("fast_rcnn/cls_accuracy", num_right / gt_classes.numel())
    if num_fg > 0:
        put_scalar("fast_rcnn/fg_cls_accuracy", num_fg_right / num_fg)
        put_scalar("fast_rcnn/false_negative", num_missed / num_fg)


class FastRCNNOutputLayers(nn.Module):
    """Two linear layers: the class logits of a proposal, and its refinement.

    `input_shape` is that of a proposal's features, or their number; `loss_weight` may be a dict of
    "loss_cls" and "loss_box_reg"; for the `test_...` see `fast_rcnn_inference`.
    """

    def __init__(
        self,
        input_shape: ShapeSpec | int,
        *,
        box2box_transform: Box2BoxTransform,
        num_classes: int,
        test_score_thresh: float = 0.0,
        test_nms_thresh: float = 0.5,
        test_topk_per_image: int = 100,
        cls_agnostic_bbox_reg: bool = False,
        smooth_l1_beta: float = 0.0,
        box_reg_loss_type: str = "smooth_l1",
        loss_weight: float | dict[str, float] = 1.0,
    ):
        super().__init__()
        if isinstance(input_shape, int):
            input_shape = ShapeSpec(channels=input_shape)
        width = input_shape.channels * (input_shape.width or 1) * (input_shape.height or 1)
        self.num_classes = num_classes
        self.cls_score = Linear(width, num_classes + 1)
        self.bbox_pred = Linear(width, 4 * (1 if cls_agnostic_bbox_reg else num_classes))
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        nn.init.zeros_(self.cls_score.bias)
        nn.init.zeros_(self.bbox_pred.bias)
        self.box2box_transform = box2box_transform
        self.test_score_thresh = test_score_thresh
        self.test_nms_thresh = test_nms_thresh
        self.test_topk_per_image = test_topk_per_image
        self.smooth_l1_beta = smooth_l1_beta
        self.box_reg_loss_type = box_reg_loss_type
        self.loss_weight = loss_weight

    def forward(self, x: Tensor) -> Predictions:
        """Map features [R, ...] to logits and deltas."""
        x = x.flatten(1)
        return self.cls_score(x), self.bbox_pred(x)

    def losses(self, predictions: Predictions, proposals: list[Instances]) -> dict[str, Tensor]:
        """Return the weighted losses `loss_cls` and `loss_box_reg` of what `forward` returned.

        Takes for each image `proposal_boxes`, `gt_classes` and, where it has objects, `gt_boxes`.
        """
        logits, deltas = predictions
        gt_classes = cat([p.gt_classes for p in proposals])
        _log_classification_stats(logits, gt_classes)
        # Without ground truth all is background and any box will do.
        gt_boxes = [(p.gt_boxes if p.has("gt_boxes") else p.proposal_boxes) for p in proposals]
        foreground = nonzero_tuple((gt_classes >= 0) & (gt_classes < self.num_classes))[0]
        deltas = deltas.unflatten(1, (-1, 4))  # [R, K or 1, 4]
        loss_box_reg = box_regression_loss(
            self.box2box_transform,
            deltas[foreground, gt_classes[foreground] if deltas.shape[1] > 1 else 0],
            cat([p.proposal_boxes.tensor for p in proposals])[foreground],
            cat([boxes.tensor for boxes in gt_boxes])[foreground],
            self.box_reg_loss_type,
            self.smooth_l1_beta,
        )
        losses = {
            "loss_cls": cross_entropy(logits, gt_classes, reduction="mean"),
            # Divided by the foreground alone, each box would count for more where there are few.
            "loss_box_reg": loss_box_reg / max(gt_classes.numel(), 1.0),
        }
        return weigh_losses(losses, self.loss_weight)

    def inference(
        self, predictions: Predictions, proposals: list[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """Return detections and the proposals they come from, as `fast_rcnn_inference`."""
        return fast_rcnn_inference(
            self.predict_boxes(predictions, proposals),
            self.predict_probs(predictions, proposals),
            [p.image_size for p in proposals],
            self.test_score_thresh,
            self.test_nms_thresh,
            self.test_topk_per_image,
        )

    def predict_boxes(self, predictions: Predictions, proposals: list[Instances]) -> list[Tensor]:
        """Return for each image the refined boxes, Tensor[Ri, K * 4] or [Ri, 4]."""
        if not proposals:
            return []
        proposal_boxes = cat([p.proposal_boxes.tensor for p in proposals])
        boxes = self.box2box_transform.apply_deltas(predictions[1], proposal_boxes)
        return list(boxes.split([len(p) for p in proposals]))

    def predict_probs(self, predictions: Predictions, proposals: list[Instances]) -> list[Tensor]:
        """Return for each image the class probabilities, Tensor[Ri, K + 1], background last."""
        probs = F.softmax(predictions[0], dim=-1)
        return list(probs.split([len(p) for p in proposals]))
