"""Anchors and the region proposal network (Ren et al. 2015)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import Conv2d, batched_nms, cat
from ..structures import Boxes, ImageList, Instances, pairwise_iou
from ..utils.events import put_scalar
from .targets import Box2BoxTransform, Matcher, box_regression_loss, subsample_labels, weigh_losses


def _per_level(values: Sequence, num_levels: int, name: str) -> list[list[float]]:
    """Spread one list of floats over all levels, or check that there is a list for each."""
    values = values if isinstance(values[0], Sequence) else [values]
    values = list(values) * num_levels if len(values) == 1 else values
    if len(values) != num_levels:
        raise ValueError(f"{name} has {len(values)} entries for {num_levels} feature maps")
    return [list(v) for v in values]


class DefaultAnchorGenerator(nn.Module):
    """Anchors of given sizes and shapes around every cell of every feature map.

    `sizes` (square root of the area, in pixels of the image) and `aspect_ratios` (height / width)
    are lists for each map, or one for all; `offset` in [0, 1) is where in its cell an anchor is
    centred, from the upper left corner.
    """

    box_dim: int = 4

    def __init__(self, *, sizes, aspect_ratios, strides: Sequence[int], offset: float = 0.5):
        super().__init__()
        if not 0.0 <= offset < 1.0:
            raise ValueError(f"offset lies in [0, 1), got {offset}")
        self.strides = list(strides)
        self.offset = offset
        sizes = _per_level(sizes, len(self.strides), "sizes")
        aspect_ratios = _per_level(aspect_ratios, len(self.strides), "aspect_ratios")
        for level, (s, a) in enumerate(zip(sizes, aspect_ratios)):
            anchors = self.generate_cell_anchors(s, a)
            # Not saved: checkpoints hold only what is learned.
            self.register_buffer(f"cell_anchors_{level}", anchors, persistent=False)

    @property
    def cell_anchors(self) -> list[Tensor]:
        """The anchors of each feature map around (0, 0), each Tensor[A, 4]."""
        return [getattr(self, f"cell_anchors_{level}") for level in range(len(self.strides))]

    @property
    def num_anchors(self) -> list[int]:
        """The number of anchors per cell, for each feature map."""
        return [len(anchors) for anchors in self.cell_anchors]

    @staticmethod
    def generate_cell_anchors(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> Tensor:
        """Return anchors around (0, 0), Tensor[sizes * ratios, 4]; sizes vary slowest."""
        half_sides = [
            (0.5 * size / math.sqrt(ratio), 0.5 * size * math.sqrt(ratio))
            for size in sizes
            for ratio in aspect_ratios
        ]
        return torch.tensor([(-w, -h, w, h) for w, h in half_sides])

    def forward(self, features: list[Tensor]) -> list[Boxes]:
        """Return the Hi * Wi * Ai anchors of each feature map [N, C, Hi, Wi].

        Rows vary slowest, then columns, then the anchors of a cell.
        """
        boxes = []
        for feature, stride, anchors in zip(features, self.strides, self.cell_anchors):
            y, x = (
                (torch.arange(n, device=anchors.device, dtype=torch.float32) + self.offset) * stride
                for n in feature.shape[-2:]
            )
            y, x = torch.meshgrid(y, x, indexing="ij")
            centers = torch.stack((x, y, x, y), dim=-1)  # [Hi, Wi, 4]
            boxes.append(Boxes((centers[:, :, None] + anchors).reshape(-1, 4)))
        return boxes


class StandardRPNHead(nn.Module):
    """3x3 convolutions, then for each anchor one objectness logit and one box change.

    The same weights serve every feature map. `conv_dims` are the convolutions' output channels, -1
    for as many as come in.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_anchors: int,
        box_dim: int = 4,
        conv_dims: Sequence[int] = (-1,),
    ):
        super().__init__()
        channels, convs = in_channels, []
        for conv_dim in conv_dims:
            out_channels = channels if conv_dim == -1 else conv_dim
            convs.append(Conv2d(channels, out_channels, 3, padding=1, activation=nn.ReLU()))
            channels = out_channels
        if len(convs) == 1:  # checkpoints know a single one as `conv`, several as `conv.conv0` ...
            self.conv = convs[0]
        else:
            self.conv = nn.Sequential()
            for i, conv in enumerate(convs):
                self.conv.add_module(f"conv{i}", conv)
        self.objectness_logits = nn.Conv2d(channels, num_anchors, kernel_size=1)
        self.anchor_deltas = nn.Conv2d(channels, num_anchors * box_dim, kernel_size=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Map maps [N, C, Hi, Wi] to logits [N, A, Hi, Wi] and deltas [N, A * 4, Hi, Wi]."""
        hidden = [self.conv(x) for x in features]
        return [self.objectness_logits(t) for t in hidden], [self.anchor_deltas(t) for t in hidden]


class RPN(nn.Module):
    """Propose boxes that may hold an object of whatever class.

    `pre_nms_topk` (of a map) and `post_nms_topk` (of an image) are for (training, test); proposals
    of at most `min_box_size` pixels are dropped; anchors that stick out of the image by more than
    `anchor_boundary_thresh` pixels do not train, unless it is negative; `loss_weight` may be a dict
    of "loss_rpn_cls" and "loss_rpn_loc".
    """

    def __init__(
        self,
        *,
        in_features: Sequence[str],
        head: nn.Module,
        anchor_generator: nn.Module,
        anchor_matcher: Matcher,
        box2box_transform: Box2BoxTransform,
        batch_size_per_image: int,
        positive_fraction: float,
        pre_nms_topk: tuple[int, int],
        post_nms_topk: tuple[int, int],
        nms_thresh: float = 0.7,
        min_box_size: float = 0.0,
        anchor_boundary_thresh: float = -1.0,
        loss_weight: float | dict[str, float] = 1.0,
        box_reg_loss_type: str = "smooth_l1",
        smooth_l1_beta: float = 0.0,
    ):
        super().__init__()
        self.in_features = list(in_features)
        self.rpn_head = head
        self.anchor_generator = anchor_generator
        self.anchor_matcher = anchor_matcher
        self.box2box_transform = box2box_transform
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.pre_nms_topk = {True: pre_nms_topk[0], False: pre_nms_topk[1]}  # by self.training
        self.post_nms_topk = {True: post_nms_topk[0], False: post_nms_topk[1]}
        self.nms_thresh = nms_thresh
        self.min_box_size = float(min_box_size)
        self.anchor_boundary_thresh = anchor_boundary_thresh
        self.loss_weight = loss_weight
        self.box_reg_loss_type = box_reg_loss_type
        self.smooth_l1_beta = smooth_l1_beta

    def forward(self, images: ImageList, features: dict[str, Tensor], gt_instances=None):
        """Propose boxes, and in training, by each image's `gt_boxes`, compute the losses.

        Returns for each image Instances with `proposal_boxes` and `objectness_logits`, best first;
        and the losses `loss_rpn_cls` and `loss_rpn_loc` ({} outside training).
        """
        maps = [features[name] for name in self.in_features]
        anchors = self.anchor_generator(maps)
        logits, deltas = self.rpn_head(maps)
        # One row an anchor, in the order of the anchors: row, column, anchor of the cell.
        logits = [level.permute(0, 2, 3, 1).flatten(1) for level in logits]
        deltas = [level.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 4)) for level in deltas]
        losses = {}
        if self.training:
            if gt_instances is None:
                raise AssertionError("RPN needs the ground truth in training")
            gt_labels, gt_boxes = self.label_and_sample_anchors(anchors, gt_instances)
            losses = self.losses(anchors, logits, gt_labels, deltas, gt_boxes)
        return self.predict_proposals(anchors, logits, deltas, images.image_sizes), losses

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Label the R anchors of all feature maps for every image.

        Returns for each image the labels, Tensor[R] of int8 (-1 not used, 0 background, 1 object),
        and the matched ground truth, Tensor[R, 4], which says something where the label is 1.
        """
        all_anchors = Boxes.cat(anchors)
        gt_labels, matched_boxes = [], []
        for instances in gt_instances:
            gt_boxes = instances.gt_boxes
            matches, labels = self.anchor_matcher(pairwise_iou(gt_boxes, all_anchors))
            if self.anchor_boundary_thresh >= 0:
                inside = all_anchors.inside_box(instances.image_size, self.anchor_boundary_thresh)
                labels[~inside] = -1
            positive, negative = subsample_labels(
                labels, self.batch_size_per_image, self.positive_fraction, 0
            )
            labels.fill_(-1)
            labels[positive] = 1
            labels[negative] = 0
            gt_labels.append(labels)
            any_box = torch.zeros_like(all_anchors.tensor)
            matched_boxes.append(gt_boxes.tensor[matches] if len(gt_boxes) > 0 else any_box)
        return gt_labels, matched_boxes

    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """Return the weighted losses, per sampled anchor.

        Takes for each map its Ri anchors, logits [N, Ri] and deltas [N, Ri, 4]; the others are what
        `label_and_sample_anchors` returns.
        """
        num_images = len(gt_labels)
        labels = torch.stack(gt_labels)  # [N, R]
        positive, valid = labels == 1, labels >= 0
        num_positive = int(positive.sum())
        put_scalar("rpn/num_pos_anchors", num_positive / num_images)
        put_scalar("rpn/num_neg_anchors", (int(valid.sum()) - num_positive) / num_images)
        logits = cat(pred_objectness_logits, dim=1)
        loss_cls = F.binary_cross_entropy_with_logits(
            logits[valid].float(), labels[valid].float(), reduction="sum"
        )
        source = Boxes.cat(anchors).tensor.expand(num_images, -1, -1)
        loss_loc = box_regression_loss(
            self.box2box_transform,
            cat(pred_anchor_deltas, dim=1)[positive],
            source[positive],
            torch.stack(gt_boxes)[positive],
            self.box_reg_loss_type,
            self.smooth_l1_beta,
        )
        normalizer = self.batch_size_per_image * num_images
        losses = {"loss_rpn_cls": loss_cls / normalizer, "loss_rpn_loc": loss_loc / normalizer}
        return weigh_losses(losses, self.loss_weight)

    # Proposals are where the next stage looks, not a way for its gradient to take.
    @torch.no_grad()
    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Return for each image the best proposals, best first; arguments as in `losses`.

        Raises FloatingPointError, in training, if predictions are infinite or NaN.
        """
        boxes, scores, levels = [], [], []
        per_level = zip(anchors, pred_objectness_logits, pred_anchor_deltas)
        for level, (level_anchors, logits, deltas) in enumerate(per_level):
            count = min(self.pre_nms_topk[self.training], logits.shape[1])
            top_scores, top = logits.topk(count, dim=1)
            # Decoding after the choice spares most of the work.
            top_deltas = deltas.gather(1, top[:, :, None].expand(-1, -1, deltas.shape[2]))
            decoded = self.box2box_transform.apply_deltas(
                top_deltas.flatten(0, 1), level_anchors.tensor[top.flatten()]
            )
            boxes.append(decoded.view(len(logits), count, -1))
            scores.append(top_scores)
            levels.append(top.new_full((count,), level))
        all_boxes, all_scores, all_levels = cat(boxes, 1), cat(scores, 1), cat(levels)
        return [
            self._keep_best(Boxes(b), s, all_levels, size)
            for b, s, size in zip(all_boxes, all_scores, image_sizes)
        ]

    def _keep_best(
        self, boxes: Boxes, scores: Tensor, levels: Tensor, image_size: tuple[int, int]
    ) -> Instances:
        """Return one image's proposals after clipping, dropping the small ones, and NMS."""
        valid = torch.isfinite(boxes.tensor).all(dim=1) & torch.isfinite(scores)
        if not valid.all():
            if self.training:
                raise FloatingPointError(
                    "The proposals' boxes or scores are infinite or NaN: training has diverged."
                )
            boxes, scores, levels = boxes[valid], scores[valid], levels[valid]
        boxes.clip(image_size)
        large = boxes.nonempty(threshold=self.min_box_size)
        boxes, scores, levels = boxes[large], scores[large], levels[large]
        keep = batched_nms(boxes.tensor, scores, levels, self.nms_thresh)
        keep = keep[: self.post_nms_topk[self.training]]
        return Instances(image_size, proposal_boxes=boxes[keep], objectness_logits=scores[keep])
