"""What the published two-stage detectors share: Iwin-T, FPN, region proposals, ImageNet statistics.

`model.roi_heads` is left to whoever imports this, and so is what their proposals differ in.
"""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.layers import ShapeSpec
from iwin_d2.d2.modeling import (
    FPN,
    RPN,
    Box2BoxTransform,
    DefaultAnchorGenerator,
    GeneralizedRCNN,
    LastLevelMaxPool,
    MaskRCNNConvUpsampleHead,
    Matcher,
    ROIPooler,
    StandardRPNHead,
)
from iwin_d2.modeling import IwinTransformer


def pooler(output_size):
    """Describe the pooler of a head that takes `output_size` x `output_size` features of a box."""
    return L(ROIPooler)(
        output_size=output_size,
        scales=(1 / 4, 1 / 8, 1 / 16, 1 / 32),
        sampling_ratio=0,
        pooler_type="ROIAlignV2",
    )


def mask_head(num_classes):
    """Describe a mask head: 4 convolutions, upsampling, a mask of 28 x 28 for each class."""
    return L(MaskRCNNConvUpsampleHead)(
        input_shape=L(ShapeSpec)(channels=256, height=14, width=14),
        num_classes=num_classes,
        conv_dims=[256, 256, 256, 256, 256],
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
        post_nms_topk=(1000, 1000),
        nms_thresh=0.7,
        anchor_boundary_thresh=-1,
        smooth_l1_beta=0.0,
    ),
    roi_heads=None,
    # ImageNet statistics in RGB order, 0 to 255.
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    input_format="RGB",
)
