"""The cascade heads of the published Iwin detectors.

They differ from Detectron2's `CascadeROIHeads`: regression is class-specific, every stage samples
its proposals anew, every stage has a mask head of its own, and at test time the stages' logits
(not their probabilities) and their mask probabilities are averaged. Source: the published
Cascade Mask R-CNN configs (`giou_4conv1f`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..d2.modeling import Matcher, ROIHeads, ROIPooler, select_foreground_proposals
from ..d2.structures import Boxes, Instances
from ..d2.utils.events import get_event_storage, has_event_storage

__all__ = ["CascadeMaskROIHeads"]

Features = dict[str, Tensor]
Predictions = tuple[Tensor, Tensor]


class CascadeMaskROIHeads(ROIHeads):
    """Box heads in a cascade, each on the boxes that the one before it refined, with masks.

    Args:
        num_classes: classes without the background.
        box_in_features: names of the feature maps that boxes are pooled from.
        box_pooler: pooler shared by the box heads.
        box_heads: one a stage.
        box_predictors: `FastRCNNOutputLayers`, one a stage, with class-specific regression; the
            last one's thresholds select the detections.
        proposal_matchers: one a stage, with a rising IoU threshold.
        stage_loss_weights: factor on all losses of each stage.
        mask_in_features, mask_pooler, mask_heads: the same for masks; None for boxes alone.
        batch_size_per_image: proposals sampled per image and stage for training.
        positive_fraction: the most of them that may be foreground.
        proposal_append_gt: whether each stage's proposals include the true boxes.

    Losses carry their stage: loss_cls_stage0, loss_box_reg_stage0, loss_mask_stage0, ...
    """

    def __init__(
        self,
        *,
        num_classes: int,
        box_in_features: Sequence[str],
        box_pooler: ROIPooler,
        box_heads: Sequence[nn.Module],
        box_predictors: Sequence[nn.Module],
        proposal_matchers: Sequence[Matcher],
        stage_loss_weights: Sequence[float] = (1.0, 0.5, 0.25),
        mask_in_features: Sequence[str] | None = None,
        mask_pooler: ROIPooler | None = None,
        mask_heads: Sequence[nn.Module] | None = None,
        batch_size_per_image: int = 512,
        positive_fraction: float = 0.25,
        proposal_append_gt: bool = True,
    ):
        sampling = {
            "num_classes": num_classes,
            "batch_size_per_image": batch_size_per_image,
            "positive_fraction": positive_fraction,
            "proposal_append_gt": proposal_append_gt,
        }
        super().__init__(proposal_matcher=proposal_matchers[0], **sampling)
        per_stage = [box_heads, box_predictors, proposal_matchers, stage_loss_weights]
        per_stage += [] if mask_heads is None else [mask_heads]
        if len({len(parts) for parts in per_stage}) != 1:
            raise ValueError(
                "box_heads, box_predictors, proposal_matchers, stage_loss_weights and mask_heads "
                f"must have one entry a stage, got {[len(parts) for parts in per_stage]}"
            )
        self.num_stages = len(box_heads)
        self.stage_loss_weights = list(stage_loss_weights)
        # Labelling and sampling of each stage: parts without parameters, kept out of the modules.
        self._samplers = [ROIHeads(proposal_matcher=m, **sampling) for m in proposal_matchers]

        # Attribute names as in Detectron2's heads, so that state dicts look familiar.
        self.box_in_features = list(box_in_features)
        self.box_pooler = box_pooler
        self.box_head = nn.ModuleList(box_heads)
        self.box_predictor = nn.ModuleList(box_predictors)
        self.mask_on = mask_heads is not None
        if self.mask_on:
            self.mask_in_features = list(mask_in_features or box_in_features)
            self.mask_pooler = mask_pooler
            self.mask_head = nn.ModuleList(mask_heads)

    def forward(self, images, features: Features, proposals, targets=None):
        """Train on, or detect in, the proposals of each image.

        Args:
            images: ImageList; not used.
            features: maps by name, Tensor[B, C, H / s, W / s].
            proposals: one Instances an image with proposal_boxes and objectness_logits.
            targets: while training, one Instances an image with gt_boxes, gt_classes and, for
                masks, gt_masks.

        Returns:
            While training: ([], losses). Otherwise: (one Instances an image with pred_boxes,
            scores, pred_classes and, for masks, pred_masks Tensor[N, 1, M, M]; {}).
        """
        if self.training:
            return [], self._losses(features, proposals, targets)
        detections = self._detect_boxes(features, proposals)
        return self.forward_with_given_boxes(features, detections), {}

    def forward_with_given_boxes(self, features: Features, instances: list[Instances]):
        """Add pred_masks to instances that have pred_boxes and pred_classes."""
        if not self.mask_on:
            return instances
        maps = [features[name] for name in self.mask_in_features]
        pooled = self.mask_pooler(maps, [x.pred_boxes for x in instances])
        probabilities = torch.stack([h.layers(pooled).sigmoid() for h in self.mask_head]).mean(0)
        classes = torch.cat([x.pred_classes for x in instances])
        index = torch.arange(len(classes), device=classes.device)
        masks = probabilities[index, classes][:, None]
        for instance, mask in zip(instances, masks.split([len(x) for x in instances])):
            instance.pred_masks = mask
        return instances

    def _run_box_stage(
        self, stage: int, features: Features, proposals: list[Instances]
    ) -> Predictions:
        """Return logits Tensor[N, K + 1] and deltas Tensor[N, 4 * K] of all images' proposals."""
        maps = [features[name] for name in self.box_in_features]
        pooled = self.box_pooler(maps, [x.proposal_boxes for x in proposals])
        return self.box_predictor[stage](self.box_head[stage](pooled))

    def _losses(self, features: Features, proposals, targets) -> dict[str, Tensor]:
        losses = {}
        for stage, (sampler, weight) in enumerate(zip(self._samplers, self.stage_loss_weights)):
            sampled = sampler.label_and_sample_proposals(proposals, targets)
            predictions = self._run_box_stage(stage, features, sampled)
            stage_losses = self._in_scope(
                f"stage{stage}", self.box_predictor[stage].losses, predictions, sampled
            )
            if self.mask_on:
                foreground, _ = select_foreground_proposals(sampled, self.num_classes)
                maps = [features[name] for name in self.mask_in_features]
                pooled = self.mask_pooler(maps, [x.proposal_boxes for x in foreground])
                stage_losses.update(
                    self._in_scope(f"stage{stage}", self.mask_head[stage], pooled, foreground)
                )
            losses.update({f"{k}_stage{stage}": v * weight for k, v in stage_losses.items()})
            if stage < self.num_stages - 1:
                proposals = self._refine_sampled(stage, predictions, sampled)
        return losses

    @torch.no_grad()
    def _refine_sampled(self, stage: int, predictions: Predictions, sampled: list[Instances]):
        """Make the next stage's proposals: the true class refines foreground, the best the rest."""
        logits, _ = predictions
        truth = torch.cat([x.gt_classes for x in sampled])
        best = logits[:, :-1].argmax(1)
        refined = self._refine(
            stage, predictions, sampled, torch.where(truth == self.num_classes, best, truth)
        )
        kept = []
        for before, after in zip(sampled, refined):
            keep = after.proposal_boxes.nonempty()
            if before.has("gt_boxes"):
                # A true box that was appended to the proposals is appended again; drop its trace.
                is_truth = (before.proposal_boxes.tensor == before.gt_boxes.tensor).all(1)
                keep &= ~is_truth | (before.gt_classes == self.num_classes)
            kept.append(after[keep])
        return kept

    def _refine(
        self, stage: int, predictions: Predictions, proposals: list[Instances], classes: Tensor
    ) -> list[Instances]:
        """Apply to each proposal the deltas of its entry in `classes`, clipped to its image."""
        deltas = predictions[1].unflatten(1, (-1, 4))
        if deltas.shape[1] > 1:  # class-specific
            deltas = deltas[torch.arange(len(classes), device=classes.device), classes]
        else:
            deltas = deltas[:, 0]
        boxes = torch.cat([x.proposal_boxes.tensor for x in proposals])
        boxes = self.box_predictor[stage].box2box_transform.apply_deltas(deltas, boxes)
        if not torch.isfinite(boxes).all():
            raise FloatingPointError(f"boxes refined by cascade stage {stage} are not finite")
        refined = []
        for before, new in zip(proposals, boxes.split([len(x) for x in proposals])):
            new = Boxes(new.to(before.proposal_boxes.tensor.dtype))
            new.clip(before.image_size)
            refined.append(
                Instances(
                    before.image_size,
                    proposal_boxes=new,
                    objectness_logits=before.objectness_logits,
                )
            )
        return refined

    def _detect_boxes(self, features: Features, proposals: list[Instances]) -> list[Instances]:
        logits = []
        for stage in range(self.num_stages):
            predictions = self._run_box_stage(stage, features, proposals)
            logits.append(predictions[0])
            if stage < self.num_stages - 1:
                best = predictions[0][:, :-1].argmax(1)
                proposals = self._refine(stage, predictions, proposals, best)
        mean_logits = torch.stack(logits).mean(0)
        detections, _ = self.box_predictor[-1].inference((mean_logits, predictions[1]), proposals)
        return detections

    @staticmethod
    def _in_scope(scope: str, function, *args):
        """Call `function` with its metrics filed under `scope`."""
        if not has_event_storage():
            return function(*args)
        with get_event_storage().name_scope(scope):
            return function(*args)
