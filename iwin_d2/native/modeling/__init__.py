"""The parts that detectors are built from. The door lists all names."""
# ruff: noqa: F401

from .backbone import BACKBONE_REGISTRY, FPN, Backbone, LastLevelMaxPool, LastLevelP6P7
from .box_head import FastRCNNConvFCHead, FastRCNNOutputLayers, fast_rcnn_inference
from .mask_head import MaskRCNNConvUpsampleHead, mask_rcnn_inference, mask_rcnn_loss
from .rcnn import GeneralizedRCNN, detector_postprocess
from .roi_heads import (
    ROIHeads,
    ROIPooler,
    StandardROIHeads,
    add_ground_truth_to_proposals,
    select_foreground_proposals,
)
from .rpn import RPN, DefaultAnchorGenerator, StandardRPNHead
from .semantic_seg import SemanticSegmentor, SemSegFPNHead, sem_seg_postprocess
from .targets import Box2BoxTransform, Matcher, subsample_labels
