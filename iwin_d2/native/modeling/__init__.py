"""The parts that detectors are built from."""

from .anchor_generator import DefaultAnchorGenerator
from .backbone import BACKBONE_REGISTRY, Backbone
from .box_head import FastRCNNConvFCHead
from .box_regression import Box2BoxTransform
from .fast_rcnn import FastRCNNOutputLayers, fast_rcnn_inference
from .fpn import FPN, LastLevelMaxPool
from .mask_head import MaskRCNNConvUpsampleHead, mask_rcnn_inference, mask_rcnn_loss
from .matcher import Matcher
from .poolers import ROIPooler
from .postprocessing import detector_postprocess
from .rcnn import GeneralizedRCNN
from .roi_heads import (
    ROIHeads,
    StandardROIHeads,
    add_ground_truth_to_proposals,
    select_foreground_proposals,
)
from .rpn import RPN, StandardRPNHead
from .sampling import subsample_labels

__all__ = [
    "BACKBONE_REGISTRY",
    "FPN",
    "RPN",
    "Backbone",
    "Box2BoxTransform",
    "DefaultAnchorGenerator",
    "FastRCNNConvFCHead",
    "FastRCNNOutputLayers",
    "GeneralizedRCNN",
    "LastLevelMaxPool",
    "MaskRCNNConvUpsampleHead",
    "Matcher",
    "ROIHeads",
    "ROIPooler",
    "StandardROIHeads",
    "StandardRPNHead",
    "add_ground_truth_to_proposals",
    "detector_postprocess",
    "fast_rcnn_inference",
    "mask_rcnn_inference",
    "mask_rcnn_loss",
    "select_foreground_proposals",
    "subsample_labels",
]
