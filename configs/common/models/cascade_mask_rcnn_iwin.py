"""Cascade Mask R-CNN on an Iwin-T backbone, head `giou_4conv1f` as published."""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.layers import ShapeSpec
from iwin_d2.d2.modeling import (
    Box2BoxTransform,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    Matcher,
)
from iwin_d2.modeling.cascade import CascadeMaskROIHeads

from .rcnn_iwin import mask_head, model, pooler

_STAGE_IOUS = (0.5, 0.6, 0.7)
# 1 / the standard deviations of the box deltas: (0.1, 0.2), (0.05, 0.1), (0.033, 0.067).
_STAGE_WEIGHTS = [
    (1 / xy, 1 / xy, 1 / wh, 1 / wh) for xy, wh in ((0.1, 0.2), (0.05, 0.1), (0.033, 0.067))
]

model.proposal_generator.update(
    post_nms_topk=(2000, 1000),
    anchor_boundary_thresh=0,  # anchors that leave the image do not train (allowed_border=0)
    smooth_l1_beta=1 / 9,
)
model.roi_heads = L(CascadeMaskROIHeads)(
    num_classes=80,
    batch_size_per_image=512,
    positive_fraction=0.25,
    box_in_features=["p2", "p3", "p4", "p5"],
    box_pooler=pooler(7),
    box_heads=[
        L(FastRCNNConvFCHead)(
            input_shape=L(ShapeSpec)(channels=256, height=7, width=7),
            conv_dims=[256, 256, 256, 256],
            fc_dims=[1024],
            conv_norm="SyncBN",
        )
        for _ in _STAGE_IOUS
    ],
    box_predictors=[
        L(FastRCNNOutputLayers)(
            input_shape=L(ShapeSpec)(channels=1024),
            box2box_transform=L(Box2BoxTransform)(weights=weights),
            num_classes="${...num_classes}",
            cls_agnostic_bbox_reg=False,
            box_reg_loss_type="giou",
            loss_weight={"loss_cls": 1.0, "loss_box_reg": 10.0},
            test_score_thresh=0.05,
            test_nms_thresh=0.5,
            test_topk_per_image=100,
        )
        for weights in _STAGE_WEIGHTS
    ],
    proposal_matchers=[
        L(Matcher)(thresholds=[iou], labels=[0, 1], allow_low_quality_matches=False)
        for iou in _STAGE_IOUS
    ],
    stage_loss_weights=[1.0, 0.5, 0.25],
    mask_in_features=["p2", "p3", "p4", "p5"],
    mask_pooler=pooler(14),
    mask_heads=[mask_head("${...num_classes}") for _ in _STAGE_IOUS],
)
