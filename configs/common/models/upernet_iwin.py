"""UPerNet on an Iwin-T backbone, with an auxiliary head on its third stage, as published."""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.modeling import SemanticSegmentor
from iwin_d2.modeling import FCNHead, IwinTransformer, SegmentationLoss, UPerNetHead
from iwin_d2.modeling.iwin import iwin_shapes

model = L(SemanticSegmentor)(
    backbone=L(IwinTransformer)(
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        drop_path_rate=0.3,
        in_chans=3,
        out_features=["res2", "res3", "res4", "res5"],
        freeze_at=0,
        use_checkpoint=False,
    ),
    sem_seg_head=L(UPerNetHead)(
        input_shape=L(iwin_shapes)(embed_dim="${...backbone.embed_dim}"),
        in_features=["res2", "res3", "res4", "res5"],
        num_classes=150,
        channels=512,
        pool_scales=[1, 2, 3, 6],
        dropout=0.1,
        norm="SyncBN",  # plain BatchNorm in a single process
        ignore_value=255,
        loss_weight=1.0,
        loss=L(SegmentationLoss)(class_weights=None, ohem_threshold=None, ohem_min_kept=None),
        auxiliary=L(FCNHead)(
            input_shape="${..input_shape}",
            in_feature="res4",
            num_classes="${..num_classes}",
            channels=256,
            num_convs=1,
            dropout=0.1,
            norm="${..norm}",
            ignore_value="${..ignore_value}",
            loss_weight=0.4,
            loss="${..loss}",
        ),
    ),
    # ImageNet statistics in RGB order, 0 to 255.
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
)
