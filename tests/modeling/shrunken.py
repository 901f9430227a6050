"""The published detectors' configs, shrunken to the size of the golden files' models."""

from pathlib import Path

from iwin_d2.d2.config import LazyConfig

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "configs/common/models"


def shrunken_cascade(num_classes=5, channels=16, fc=32, convs=4):
    """Cascade Mask R-CNN."""
    model = _shrunken("cascade_mask_rcnn_iwin.py", num_classes, channels)
    for head in model.roi_heads.box_heads:
        head.input_shape.channels = channels
        head.update(conv_dims=[channels] * convs, fc_dims=[fc])
    for predictor in model.roi_heads.box_predictors:
        predictor.input_shape.channels = fc
    for head in model.roi_heads.mask_heads:
        _shrink_mask_head(head, channels)
    return model


def shrunken_mask_rcnn(num_classes=5, channels=16, fc=32):
    """Mask R-CNN."""
    model = _shrunken("mask_rcnn_iwin.py", num_classes, channels)
    heads = model.roi_heads
    heads.box_head.input_shape.channels = channels
    heads.box_head.fc_dims = [fc, fc]
    heads.box_predictor.input_shape.channels = fc
    _shrink_mask_head(heads.mask_head, channels)
    return model


def _shrunken(config, num_classes, channels):
    """A config with a small backbone, neck and proposal network."""
    model = LazyConfig.load(str(MODELS / config)).model
    model.backbone.bottom_up.update(embed_dim=16, depths=[1, 1, 2, 1], num_heads=[2, 4, 8, 16])
    model.backbone.out_channels = channels
    model.proposal_generator.head.in_channels = channels
    model.roi_heads.num_classes = num_classes
    return model


def _shrink_mask_head(head, channels):
    head.input_shape.channels = channels
    head.conv_dims = [channels] * 5
