"""The second stage of a detector: what it does with proposals."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..layers import nonzero_tuple
from ..structures import Boxes, ImageList, Instances, pairwise_iou
from .matcher import Matcher
from .metrics import put_scalars
from .poolers import ROIPooler
from .sampling import subsample_labels

__all__ = [
    "ROIHeads",
    "StandardROIHeads",
    "add_ground_truth_to_proposals",
    "select_foreground_proposals",
]

# The objectness of a box that is certain to hold an object: sigmoid(x) = 1 - 1e-10.
_GT_LOGIT = math.log((1.0 - 1e-10) / 1e-10)


def add_ground_truth_to_proposals(
    gt: list[Instances] | list[Boxes], proposals: list[Instances]
) -> list[Instances]:
    """Append the ground truth to the proposals, so that training always sees good ones.

    Args:
        gt: for each image Instances with `gt_boxes`, or the boxes.
        proposals: for each image, with `proposal_boxes` and `objectness_logits`.

    Returns:
        New Instances with the fields of the proposals.
    """
    if len(gt) != len(proposals):
        raise AssertionError(f"ground truth of {len(gt)} images, proposals of {len(proposals)}")
    extended = []
    for truth, per_image in zip(gt, proposals):
        boxes = truth if isinstance(truth, Boxes) else truth.gt_boxes
        fields = {} if isinstance(truth, Boxes) else truth.get_fields()
        as_proposals = Instances(per_image.image_size, **fields)
        as_proposals.proposal_boxes = boxes
        logits = torch.full((len(boxes),), _GT_LOGIT, device=boxes.device)
        as_proposals.objectness_logits = logits
        for name in per_image.get_fields():
            if not as_proposals.has(name):
                raise AssertionError(f"the proposals' field {name!r} is not in the ground truth")
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

    Args:
        num_classes: K, without the background, whose label is K.
        batch_size_per_image: proposals per image that the losses are computed on.
        positive_fraction: the largest share of foreground among them.
        proposal_matcher: matches proposals with the ground truth by IoU.
        proposal_append_gt: also take the ground truth itself as proposals in training.
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

    def _sample_proposals(
        self, matched_idxs: Tensor, matched_labels: Tensor, gt_classes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Draw proposals; return their indices, foreground first, and classes (K for background).

        Takes the match of each proposal, its label (1 foreground, 0 background, -1 ignored), and
        the classes of the ground truth.
        """
        if gt_classes.numel() > 0:
            classes = gt_classes[matched_idxs]
            classes[matched_labels == 0] = self.num_classes
            classes[matched_labels == -1] = -1
        else:
            classes = torch.full_like(matched_idxs, self.num_classes)
        foreground, background = subsample_labels(
            classes, self.batch_size_per_image, self.positive_fraction, self.num_classes
        )
        sampled = torch.cat([foreground, background])
        return sampled, classes[sampled]

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """Draw the proposals to train on and attach their ground truth.

        Args:
            proposals: for each image, with `proposal_boxes`.
            targets: for each image, with `gt_boxes`, `gt_classes` and any further gt_* fields.

        Returns:
            For each image the sampled proposals with `gt_classes` (K for background) and, where
            the image has any ground truth, the other gt_* fields of the best match (which say
            something only about foreground).
        """
        if self.proposal_append_gt:
            proposals = add_ground_truth_to_proposals(targets, proposals)
        sampled_proposals, num_fg, num_bg = [], 0, 0
        for per_image, truth in zip(proposals, targets):
            iou = pairwise_iou(truth.gt_boxes, per_image.proposal_boxes)
            matched_idxs, matched_labels = self.proposal_matcher(iou)
            sampled, classes = self._sample_proposals(
                matched_idxs, matched_labels, truth.gt_classes
            )
            chosen = per_image[sampled]
            chosen.gt_classes = classes
            if len(truth) > 0:
                matched = matched_idxs[sampled]
                for name, value in truth.get_fields().items():
                    if name.startswith("gt_") and not chosen.has(name):
                        chosen.set(name, value[matched])
            background = int((classes == self.num_classes).sum())
            num_bg += background
            num_fg += classes.numel() - background
            sampled_proposals.append(chosen)
        num_images = len(targets)
        put_scalars(
            **{
                "roi_head/num_fg_samples": num_fg / num_images,
                "roi_head/num_bg_samples": num_bg / num_images,
            }
        )
        return sampled_proposals

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Turn proposals into detections, or in training into losses.

        Returns:
            For each image the detections (in training the sampled proposals), and the losses by
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

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """See `ROIHeads.forward`."""
        if self.training:
            if targets is None:
                raise AssertionError("the heads need the ground truth in training")
            proposals = self.label_and_sample_proposals(proposals, targets)
            losses = self._forward_box(features, proposals)
            losses.update(self._forward_mask(features, proposals))
            return proposals, losses
        detections = self._forward_box(features, proposals)
        return self.forward_with_given_boxes(features, detections), {}

    def forward_with_given_boxes(
        self, features: dict[str, Tensor], instances: list[Instances]
    ) -> list[Instances]:
        """Predict the masks of boxes that are already there.

        Takes for each image `pred_boxes` and `pred_classes`; adds `pred_masks` if there is a head.
        """
        if self.training:
            raise AssertionError("boxes can be given only outside training")
        return self._forward_mask(features, instances)

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
            boxes = [p.proposal_boxes for p in instances]
        else:
            boxes = [p.pred_boxes for p in instances]
        maps = [features[name] for name in self.mask_in_features]
        return self.mask_head(self.mask_pooler(maps, boxes), instances)
