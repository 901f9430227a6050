"""Semantic FPN on an Iwin-T backbone: a feature pyramid and Detectron2's head on it."""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.layers import ShapeSpec
from iwin_d2.d2.modeling import FPN
from iwin_d2.modeling import SegmentationLoss, SemanticFPNHead

from .upernet_iwin import model

model.backbone = L(FPN)(
    bottom_up=model.backbone,
    in_features=["res2", "res3", "res4", "res5"],
    out_channels=256,
)
model.sem_seg_head = L(SemanticFPNHead)(
    input_shape={
        name: L(ShapeSpec)(channels="${....backbone.out_channels}", stride=stride)
        for name, stride in (("p2", 4), ("p3", 8), ("p4", 16), ("p5", 32))
    },
    num_classes=150,
    conv_dims=128,
    common_stride=4,
    norm="GN",
    dropout=0.1,
    ignore_value=255,
    loss_weight=1.0,
    loss=L(SegmentationLoss)(class_weights=None, ohem_threshold=None, ohem_min_kept=None),
)
