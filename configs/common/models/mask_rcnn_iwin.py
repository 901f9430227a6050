"""Mask R-CNN on an Iwin-T backbone, as published: two fully connected layers, L1 losses."""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.layers import ShapeSpec
from iwin_d2.d2.modeling import (
    Box2BoxTransform,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    Matcher,
    StandardROIHeads,
)

from .rcnn_iwin import mask_head, model, pooler

model.backbone.bottom_up.drop_path_rate = 0.1
model.proposal_generator.update(
    post_nms_topk=(1000, 1000),
    anchor_boundary_thresh=-1,  # all anchors train (allowed_border=-1)
    smooth_l1_beta=0.0,  # L1
)
model.roi_heads = L(StandardROIHeads)(
    num_classes=80,
    batch_size_per_image=512,
    positive_fraction=0.25,
    proposal_matcher=L(Matcher)(thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=False),
    box_in_features=["p2", "p3", "p4", "p5"],
    box_pooler=pooler(7),
    box_head=L(FastRCNNConvFCHead)(
        input_shape=L(ShapeSpec)(channels=256, height=7, width=7),
        conv_dims=[],
        fc_dims=[1024, 1024],
    ),
    box_predictor=L(FastRCNNOutputLayers)(
        input_shape=L(ShapeSpec)(channels=1024),
        box2box_transform=L(Box2BoxTransform)(weights=(10.0, 10.0, 5.0, 5.0)),
        num_classes="${..num_classes}",
        cls_agnostic_bbox_reg=False,
        box_reg_loss_type="smooth_l1",
        smooth_l1_beta=0.0,  # L1
        test_score_thresh=0.05,
        test_nms_thresh=0.5,
        test_topk_per_image=100,
    ),
    mask_in_features=["p2", "p3", "p4", "p5"],
    mask_pooler=pooler(14),
    mask_head=mask_head("${..num_classes}"),
)
