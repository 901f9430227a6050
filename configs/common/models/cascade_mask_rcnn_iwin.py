"""Cascade Mask R-CNN on an Iwin-T backbone, head `giou_4conv1f` as published."""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.layers import ShapeSpec
from iwin_d2.d2.modeling import (
    FPN,
    RPN,
    Box2BoxTransform,
    DefaultAnchorGenerator,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    GeneralizedRCNN,
    LastLevelMaxPool,
    MaskRCNNConvUpsampleHead,
    Matcher,
    ROIPooler,
    StandardRPNHead,
)
from iwin_d2.modeling import IwinTransformer
from iwin_d2.modeling.cascade import CascadeMaskROIHeads

_STAGE_IOUS = (0.5, 0.6, 0.7)
# 1 / the standard deviations of the box deltas: (0.1, 0.2), (0.05, 0.1), (0.033, 0.067).
_STAGE_WEIGHTS = [
    (1 / xy, 1 / xy, 1 / wh, 1 / wh) for xy, wh in ((0.1, 0.2), (0.05, 0.1), (0.033, 0.067))
]


def _pooler(output_size):
    return L(ROIPooler)(
        output_size=output_size,
        scales=(1 / 4, 1 / 8, 1 / 16, 1 / 32),
        sampling_ratio=0,
        pooler_type="ROIAlignV2",
    )


model = L(GeneralizedRCNN)(
    backbone=L(FPN)(
        bottom_up=L(IwinTransformer)(
            embed_dim=96,
            depths=[2, 2, 6, 2],
            num_heads=[3, 6, 12, 24],
            window_size=7,
            drop_path_rate=0.0,
            in_chans=3,
            out_features=["res2", "res3", "res4", "res5"],
            freeze_at=0,
            use_checkpoint=False,
        ),
        in_features=["res2", "res3", "res4", "res5"],
        out_channels=256,
        top_block=L(LastLevelMaxPool)(),
    ),
    proposal_generator=L(RPN)(
        in_features=["p2", "p3", "p4", "p5", "p6"],
        head=L(StandardRPNHead)(in_channels=256, num_anchors=3),
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=[[32], [64], [128], [256], [512]],
            aspect_ratios=[0.5, 1.0, 2.0],
            strides=[4, 8, 16, 32, 64],
            offset=0.0,
        ),
        anchor_matcher=L(Matcher)(
            thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True
        ),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_topk=(2000, 1000),
        post_nms_topk=(2000, 1000),
        nms_thresh=0.7,
        anchor_boundary_thresh=0,  # anchors that leave the image do not train (allowed_border=0)
        smooth_l1_beta=1 / 9,
    ),
    roi_heads=L(CascadeMaskROIHeads)(
        num_classes=80,
        batch_size_per_image=512,
        positive_fraction=0.25,
        box_in_features=["p2", "p3", "p4", "p5"],
        box_pooler=_pooler(7),
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
        mask_pooler=_pooler(14),
        mask_heads=[
            L(MaskRCNNConvUpsampleHead)(
                input_shape=L(ShapeSpec)(channels=256, height=14, width=14),
                num_classes="${...num_classes}",
                conv_dims=[256, 256, 256, 256, 256],
            )
            for _ in _STAGE_IOUS
        ],
    ),
    # ImageNet statistics in RGB order, 0 to 255.
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    input_format="RGB",
)
