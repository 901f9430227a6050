"""The published detectors, small, with random weights under which they find this and that."""

import torch
import torch.nn.functional as F
from shrunken import shrunken_cascade, shrunken_mask_rcnn
from torch import nn

from iwin_d2.d2.config import instantiate


def _without_masks(config):
    heads = config.roi_heads
    heads.update({key: None for key in heads if key.startswith("mask_")})
    return config


CONFIGS = {
    "mask_rcnn": shrunken_mask_rcnn,
    "faster_rcnn": lambda: _without_masks(shrunken_mask_rcnn()),
    "cascade_mask_rcnn": shrunken_cascade,
    "cascade_rcnn": lambda: _without_masks(shrunken_cascade()),
}


def lively_detector(name):
    """One of CONFIGS, in eval mode."""
    torch.manual_seed(0)
    config = CONFIGS[name]()
    config.proposal_generator.post_nms_topk = [100, 40]
    model = instantiate(config).eval()
    predictors = model.roi_heads.box_predictor
    for predictor in predictors if isinstance(predictors, nn.ModuleList) else [predictors]:
        predictor.cls_score.weight.data *= 30  # scores that differ
        predictor.bbox_pred.weight.data *= 100
        predictor.test_score_thresh = 0.15
        predictor.test_topk_per_image = 30
    return model


def blurred_noise(height, width, seed=0):
    """An image, uint8 [3, height, width]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 7, 9, generator=generator) * 255
    return F.interpolate(coarse, (height, width), mode="bilinear")[0].to(torch.uint8)
