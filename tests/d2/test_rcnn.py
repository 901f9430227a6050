"""A whole two-stage detector, from images to masks in the user's size."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.d2.layers import ShapeSpec
from iwin_d2.d2.modeling import (
    FPN,
    RPN,
    Backbone,
    Box2BoxTransform,
    DefaultAnchorGenerator,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    GeneralizedRCNN,
    LastLevelMaxPool,
    MaskRCNNConvUpsampleHead,
    Matcher,
    ROIPooler,
    StandardROIHeads,
    StandardRPNHead,
    detector_postprocess,
)
from iwin_d2.d2.structures import Boxes, Instances, PolygonMasks
from iwin_d2.d2.utils.events import EventStorage


class TinyBackbone(Backbone):
    """Two strided convolutions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 8, stride=8)
        self.deep = nn.Conv2d(16, 16, 2, stride=2)
        self._out_features = ["res3", "res4"]
        self._out_feature_channels = {"res3": 16, "res4": 16}
        self._out_feature_strides = {"res3": 8, "res4": 16}

    def forward(self, x):
        stem = F.relu(self.stem(x))
        return {"res3": stem, "res4": F.relu(self.deep(stem))}


def make_detector() -> GeneralizedRCNN:
    torch.manual_seed(0)
    scales, names = [1 / 8, 1 / 16], ["p3", "p4"]
    return GeneralizedRCNN(
        backbone=FPN(TinyBackbone(), ["res3", "res4"], 16, top_block=LastP4()),
        proposal_generator=RPN(
            in_features=["p3", "p4", "p5"],
            head=StandardRPNHead(in_channels=16, num_anchors=1),
            anchor_generator=DefaultAnchorGenerator(
                sizes=[[16], [32], [64]], aspect_ratios=[1.0], strides=[8, 16, 32], offset=0.5
            ),
            anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
            box2box_transform=Box2BoxTransform((1.0, 1.0, 1.0, 1.0)),
            batch_size_per_image=32,
            positive_fraction=0.5,
            pre_nms_topk=(100, 50),
            post_nms_topk=(50, 30),
        ),
        roi_heads=StandardROIHeads(
            num_classes=2,
            batch_size_per_image=32,
            positive_fraction=0.5,
            proposal_matcher=Matcher([0.5], [0, 1]),
            box_in_features=names,
            box_pooler=ROIPooler(5, scales, 0, "ROIAlignV2"),
            box_head=FastRCNNConvFCHead(ShapeSpec(16, 5, 5), conv_dims=[], fc_dims=[32]),
            box_predictor=FastRCNNOutputLayers(
                ShapeSpec(channels=32),
                box2box_transform=Box2BoxTransform((10.0, 10.0, 5.0, 5.0)),
                num_classes=2,
                test_score_thresh=0.3,
            ),
            mask_in_features=names,
            mask_pooler=ROIPooler(7, scales, 0, "ROIAlignV2"),
            mask_head=MaskRCNNConvUpsampleHead(
                ShapeSpec(16, 7, 7), num_classes=2, conv_dims=[16, 16]
            ),
        ),
        pixel_mean=[0.4, 0.4, 0.4],
        pixel_std=[0.2, 0.2, 0.2],
        input_format="RGB",
    )


class LastP4(LastLevelMaxPool):
    """The extra level, from p4, which is the coarsest here."""

    def __init__(self):
        super().__init__()
        self.in_feature = "p4"


def make_input(label: int, size=(64, 80)) -> dict:
    """An image with one bright (class 0) or dark (class 1) rectangle."""
    image = torch.full((3, *size), 0.4)
    box = [16.0, 16, 48, 40]
    image[:, 16:40, 16:48] = 1.0 if label == 0 else 0.0
    instances = Instances(size)
    instances.gt_boxes = Boxes([box])
    instances.gt_classes = torch.tensor([label])
    x0, y0, x1, y1 = box
    instances.gt_masks = PolygonMasks([[np.array([x0, y0, x1, y0, x1, y1, x0, y1])]])
    return {"image": image, "instances": instances, "height": size[0] * 2, "width": size[1] * 2}


@pytest.fixture(scope="module")
def trained():
    """A detector that has seen the two images a few times, and its first and last losses."""
    model = make_detector().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    inputs, totals = [make_input(0), make_input(1, (60, 72))], []
    with EventStorage():
        for _ in range(80):
            losses = model(inputs)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            totals.append(sum(losses.values()).item())
    return model.eval(), inputs, losses, totals


def test_detector_learns_two_images(trained):
    model, inputs, losses, totals = trained
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"}
    assert totals[-1] < 0.3 * totals[0]
    with torch.no_grad():
        outputs = model(inputs)
    for label, (x, output) in enumerate(zip(inputs, outputs)):
        instances = output["instances"]
        assert instances.image_size == (x["height"], x["width"])
        assert instances.pred_classes[0] == label
        truth = 2 * x["instances"].gt_boxes.tensor[0]
        assert (instances.pred_boxes.tensor[0] - truth).abs().max() < 8
        mask = instances.pred_masks[0]
        assert mask.shape == (x["height"], x["width"])
        assert mask.dtype == torch.bool
        assert mask[32:80, 32:96].float().mean() > 0.8
        assert mask.sum() < 1.3 * 48 * 64


def test_inference_without_postprocessing(trained):
    model, inputs, _, _ = trained
    with torch.no_grad():
        raw = model.inference(inputs, do_postprocess=False)
    assert raw[0].pred_masks.shape[1:] == (1, 14, 14)
    assert raw[0].image_size == tuple(inputs[0]["image"].shape[1:])


def test_preprocessing_normalises_and_pads(trained):
    model, inputs, _, _ = trained
    batch = model.preprocess_image(inputs)
    assert batch.tensor.shape == (2, 3, 64, 80)
    assert torch.allclose(batch[1], (inputs[1]["image"] - 0.4) / 0.2)
    assert (batch.tensor[1, :, 60:] == 0).all(), "padding is zero after normalisation"
    assert not any(name.startswith("pixel_") for name in model.state_dict())
    assert model.device == torch.device("cpu")


@pytest.mark.skipif(USE_DETECTRON2, reason="Detectron2 needs an event storage to compute losses")
def test_losses_outside_training():
    losses = make_detector().train()([make_input(0)])
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_postprocessing_scales_clips_and_drops_empty_boxes():
    results = Instances((50, 100))
    boxes = Boxes([[10, 10, 30, 40], [90, 40, 120, 60], [101, 10, 110, 20]])
    results.pred_boxes = boxes
    results.scores = torch.tensor([0.9, 0.8, 0.7])
    results.pred_masks = torch.ones(3, 1, 4, 4)
    original = boxes.tensor.clone()
    scaled = detector_postprocess(results, 100, 150)
    assert scaled.image_size == (100, 150)
    assert scaled.pred_boxes.tensor.tolist() == [[15, 20, 45, 80], [135, 80, 150, 100]]
    assert scaled.scores.tolist() == pytest.approx([0.9, 0.8])
    assert scaled.pred_masks.shape == (2, 100, 150)
    assert scaled.pred_masks[0, 25:75, 18:42].all()
    assert not scaled.pred_masks[0, :20].any()
    assert results.image_size == (50, 100)
    if not USE_DETECTRON2:  # which scales the boxes it is given
        assert torch.equal(boxes.tensor, original)
