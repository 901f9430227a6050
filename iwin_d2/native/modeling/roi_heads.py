"""The second stage of a detector: what it does with proposals."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..layers import ROIAlign, cat, nonzero_tuple
from ..structures import Boxes, ImageList, Instances, pairwise_iou
from ..utils.events import put_scalar
from .targets import Matcher, subsample_labels

# The objectness of a box that is certain to hold an object: sigmoid(x) = 1 - 1e-10.
_GT_LOGIT = math.log((1.0 - 1e-10) / 1e-10)


class ROIPooler(nn.Module):
    """Cut each box out of the pyramid level that suits its size.

    `scales` are 1 / stride of each level, halving. A box of `canonical_box_size` (square root of
    the area, in pixels) is taken from the level of stride 2 ** `canonical_level`; one level coarser
    for each doubling. `pooler_type` is "ROIAlignV2" (aligned to pixel centres) or "ROIAlign" (half
    a cell off, as older models have it).
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        scales: Sequence[float],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: int = 224,
        canonical_level: int = 4,
    ):
        super().__init__()
        if isinstance(output_size, int):
            output_size = (output_size, output_size)
        if pooler_type not in ("ROIAlignV2", "ROIAlign"):
            raise ValueError(f"pooler_type is 'ROIAlignV2' or 'ROIAlign', got {pooler_type!r}")
        self.min_level = round(-math.log2(scales[0]))
        self.max_level = self.min_level + len(scales) - 1
        levels = range(self.min_level, self.max_level + 1)
        if not all(math.isclose(scale, 2.0**-level) for scale, level in zip(scales, levels)):
            raise ValueError(f"scales are powers of 2, each half the last; got {list(scales)}")
        self.output_size = tuple(output_size)
        self.canonical_box_size = canonical_box_size
        self.canonical_level = canonical_level
        aligned = pooler_type == "ROIAlignV2"
        self.level_poolers = nn.ModuleList(
            ROIAlign(self.output_size, scale, sampling_ratio, aligned) for scale in scales
        )

    def _assign_levels(self, boxes: Tensor) -> Tensor:
        """Return the index of the level for each of the boxes, Tensor[R]."""
        size = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
        # The small number keeps a box without extent from being minus infinity.
        doublings = torch.log2(size / self.canonical_box_size + 1e-8)
        level = torch.floor(self.canonical_level + doublings)
        return level.clamp(self.min_level, self.max_level).long() - self.min_level

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """Pool from the levels, each Tensor[N, C, Hi, Wi], the boxes of each of the N images.

        Returns Tensor[R, C, *output_size] for the R boxes of all images, in their order.
        """
        if len(x) != len(self.level_poolers):
            raise AssertionError(f"{len(x)} feature maps for {len(self.level_poolers)} scales")
        if len(box_lists) != x[0].shape[0]:
            raise AssertionError(f"boxes of {len(box_lists)} images for {x[0].shape[0]} images")
        boxes = cat([boxes.tensor for boxes in box_lists])
        counts = torch.tensor([len(b) for b in box_lists], device=boxes.device)
        image = torch.arange(len(box_lists), device=boxes.device).repeat_interleave(counts)
        rois = torch.cat((image[:, None].to(boxes.dtype), boxes), dim=1)
        if len(x) == 1:
            return self.level_poolers[0](x[0], rois)
        levels = self._assign_levels(boxes)
        pooled = x[0].new_zeros((len(boxes), x[0].shape[1], *self.output_size))
        for level, (feature, pooler) in enumerate(zip(x, self.level_poolers)):
            index = nonzero_tuple(levels == level)[0]
            pooled.index_put_((index,), pooler(feature, rois[index]).to(pooled.dtype))
        return pooled


def add_ground_truth_to_proposals(
    gt: list[Instances], proposals: list[Instances]
) -> list[Instances]:
    """Append each image's ground truth to its proposals, so that training always sees good ones.

    Returns new Instances with the fields of the proposals.
    """
    extended = []
    for truth, per_image in zip(gt, proposals, strict=True):
        logits = torch.full((len(truth),), _GT_LOGIT, device=truth.gt_boxes.device)
        as_proposals = Instances(per_image.image_size, **truth.get_fields())
        as_proposals.proposal_boxes = truth.gt_boxes
        as_proposals.objectness_logits = logits
        extended.append(Instances.cat([per_image, as_proposals]))
    return extended


def select_foreground_proposals(
    proposals: list[Instances], bg_label: int
) -> tuple[list[Instances], list[Tensor]]:
    """Return each image's proposals that are matched to an object, and the masks that choose them.

    Those are the ones whose `gt_classes` is neither -1 nor `bg_label`.
    """
    masks = [(p.gt_classes != -1) & (p.gt_classes != bg_label) for p in proposals]
    return [p[nonzero_tuple(mask)[0]] for p, mask in zip(proposals, masks)], masks


class ROIHeads(nn.Module):
    """Base of all second stages: labels and samples proposals for training.

    `batch_size_per_image` proposals are drawn, up to `positive_fraction` of them foreground, from
    the proposals and, with `proposal_append_gt`, the ground truth. Background has label K.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        batch_size_per_image: int,
        positive_fraction: float,
        proposal_matcher: Matcher,
        proposal_append_gt: bool = True,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.proposal_matcher = proposal_matcher
        self.proposal_append_gt = proposal_append_gt

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """Draw the proposals to train on and attach their ground truth.

        Returns for each image the sampled proposals with `gt_classes` (K for background) and, where
        the image has any ground truth, the other gt_* fields of the best match (which say something
        only about foreground).
        """
        if self.proposal_append_gt:
            proposals = add_ground_truth_to_proposals(targets, proposals)
        sampled_proposals, num_foreground, num_background = [], 0, 0
        for per_image, truth in zip(proposals, targets):
            iou = pairwise_iou(truth.gt_boxes, per_image.proposal_boxes)
            matched_idxs, matched_labels = self.proposal_matcher(iou)
            classes = torch.full_like(matched_idxs, self.num_classes)
            if len(truth) > 0:
                classes = truth.gt_classes[matched_idxs]
                classes[matched_labels == 0] = self.num_classes
                classes[matched_labels == -1] = -1
            foreground, background = subsample_labels(
                classes, self.batch_size_per_image, self.positive_fraction, self.num_classes
            )
            sampled = torch.cat([foreground, background])
            chosen = per_image[sampled]
            chosen.gt_classes = classes[sampled]
            if len(truth) > 0:
                matched = matched_idxs[sampled]
                for name, value in truth.get_fields().items():
                    if name.startswith("gt_") and not chosen.has(name):
                        chosen.set(name, value[matched])
            num_foreground += len(foreground)
            num_background += len(background)
            sampled_proposals.append(chosen)
        put_scalar("roi_head/num_fg_samples", num_foreground / len(targets))
        put_scalar("roi_head/num_bg_samples", num_background / len(targets))
        return sampled_proposals

    def forward(self, images: ImageList, features: dict[str, Tensor], proposals, targets=None):
        """Turn each image's proposals into detections, or in training into losses.

        Returns the detections (in training the sampled proposals) of each image, and the losses by
        name ({} outside training).
        """
        raise NotImplementedError


class StandardROIHeads(ROIHeads):
    """A box head and optionally a mask head, each with its own pooler.

    `box_predictor` is as `FastRCNNOutputLayers`, `mask_head` as `MaskRCNNConvUpsampleHead`; without
    `mask_in_features` there are no masks. Further arguments as for `ROIHeads`.
    """

    def __init__(
        self,
        *,
        box_in_features: Sequence[str],
        box_pooler: ROIPooler,
        box_head: nn.Module,
        box_predictor: nn.Module,
        mask_in_features: Sequence[str] | None = None,
        mask_pooler: ROIPooler | None = None,
        mask_head: nn.Module | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.in_features = self.box_in_features = list(box_in_features)
        self.box_pooler = box_pooler
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.mask_on = mask_in_features is not None
        if self.mask_on:
            self.mask_in_features = list(mask_in_features)
            self.mask_pooler = mask_pooler
            self.mask_head = mask_head

    def forward(self, images, features, proposals, targets=None):
        """See `ROIHeads.forward`."""
        if self.training:
            if targets is None:
                raise AssertionError("the heads need the ground truth in training")
            proposals = self.label_and_sample_proposals(proposals, targets)
            losses = self._forward_box(features, proposals)
            return proposals, {**losses, **self._forward_mask(features, proposals)}
        detections = self._forward_box(features, proposals)
        return self._forward_mask(features, detections), {}

    def _forward_box(self, features: dict[str, Tensor], proposals: list[Instances]):
        """Return the box losses in training, else the detections."""
        maps = [features[name] for name in self.box_in_features]
        pooled = self.box_pooler(maps, [p.proposal_boxes for p in proposals])
        predictions = self.box_predictor(self.box_head(pooled))
        if self.training:
            return self.box_predictor.losses(predictions, proposals)
        return self.box_predictor.inference(predictions, proposals)[0]

    def _forward_mask(self, features: dict[str, Tensor], instances: list[Instances]):
        """Return the mask loss in training, else the instances with their masks."""
        if not self.mask_on:
            return {} if self.training else instances
        if self.training:
            instances, _ = select_foreground_proposals(instances, self.num_classes)
        boxes = [p.proposal_boxes if self.training else p.pred_boxes for p in instances]
        maps = [features[name] for name in self.mask_in_features]
        return self.mask_head(self.mask_pooler(maps, boxes), instances)
