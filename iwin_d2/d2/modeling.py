"""The door to detectron2.modeling and its submodules."""

from .framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
    from detectron2.modeling.backbone import BACKBONE_REGISTRY, Backbone
    from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.matcher import Matcher
    from detectron2.modeling.meta_arch import GeneralizedRCNN, SemanticSegmentor
    from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
    from detectron2.modeling.poolers import ROIPooler
    from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
    from detectron2.modeling.proposal_generator import RPN
    from detectron2.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals
    from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
    from detectron2.modeling.roi_heads import ROIHeads, StandardROIHeads
    from detectron2.modeling.roi_heads.box_head import FastRCNNConvFCHead
    from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers, fast_rcnn_inference
    from detectron2.modeling.roi_heads.mask_head import (
        MaskRCNNConvUpsampleHead,
        mask_rcnn_inference,
        mask_rcnn_loss,
    )
    from detectron2.modeling.roi_heads.roi_heads import select_foreground_proposals
    from detectron2.modeling.sampling import subsample_labels
else:
    from ..native.modeling import (
        BACKBONE_REGISTRY,
        FPN,
        RPN,
        Backbone,
        Box2BoxTransform,
        DefaultAnchorGenerator,
        FastRCNNConvFCHead,
        FastRCNNOutputLayers,
        GeneralizedRCNN,
        LastLevelMaxPool,
        LastLevelP6P7,
        MaskRCNNConvUpsampleHead,
        Matcher,
        ROIHeads,
        ROIPooler,
        SemanticSegmentor,
        SemSegFPNHead,
        StandardROIHeads,
        StandardRPNHead,
        add_ground_truth_to_proposals,
        detector_postprocess,
        fast_rcnn_inference,
        mask_rcnn_inference,
        mask_rcnn_loss,
        select_foreground_proposals,
        sem_seg_postprocess,
        subsample_labels,
    )

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
    "LastLevelP6P7",
    "MaskRCNNConvUpsampleHead",
    "Matcher",
    "ROIHeads",
    "ROIPooler",
    "SemSegFPNHead",
    "SemanticSegmentor",
    "StandardROIHeads",
    "StandardRPNHead",
    "add_ground_truth_to_proposals",
    "detector_postprocess",
    "fast_rcnn_inference",
    "mask_rcnn_inference",
    "mask_rcnn_loss",
    "select_foreground_proposals",
    "sem_seg_postprocess",
    "subsample_labels",
]
