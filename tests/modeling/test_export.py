"""Detectors as functions of tensors: they find what the detectors themselves find."""

import copy

import pytest
import torch
from lively import CONFIGS, blurred_noise, lively_detector
from torch import nn

from iwin_d2.d2.config import instantiate
from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.d2.modeling import FPN, LastLevelP6P7
from iwin_d2.errors import ConfigError
from iwin_d2.modeling import IwinTransformer
from iwin_d2.modeling.export import ImagesToMaps, ImageToDetections

SIZES = [(96, 128), (100, 131), (64, 200), (20, 33)]


@pytest.fixture(scope="module", params=CONFIGS)
def detector(request):
    return lively_detector(request.param)


@torch.no_grad()
def check_detections(detector, function, size, tolerance=0.0, at_least=4):
    """Compare with the detector's own, before postprocessing."""
    image = blurred_noise(*size, seed=sum(size)).float()
    (expected,) = detector.inference([{"image": image}], do_postprocess=False)
    found = function(image)
    assert len(expected) >= at_least
    options = {"rtol": 1e-5, "atol": tolerance}
    torch.testing.assert_close(found["boxes"], expected.pred_boxes.tensor, **options)
    torch.testing.assert_close(found["scores"], expected.scores, **options)
    assert torch.equal(found["classes"], expected.pred_classes)
    assert ("masks" in found) is expected.has("pred_masks")
    if "masks" in found:
        torch.testing.assert_close(found["masks"], expected.pred_masks[:, 0], **options)


@pytest.mark.parametrize("size", SIZES)
def test_what_the_detector_finds(detector, size):
    check_detections(detector, ImageToDetections(detector), size, at_least=1 if size[0] < 64 else 4)


def test_with_float32_as_onnx_has_it(detector):
    check_detections(detector, ImageToDetections(detector, torch.float32), (96, 128))


def test_fewer_detections_than_there_may_be_and_none(detector):
    detector = copy.deepcopy(detector)
    predictors = detector.roi_heads.box_predictor
    last = predictors[-1] if isinstance(predictors, nn.ModuleList) else predictors
    last.test_topk_per_image = 3
    check_detections(detector, ImageToDetections(detector), (96, 128), at_least=3)
    last.test_topk_per_image = -1  # all
    check_detections(detector, ImageToDetections(detector), (96, 128), at_least=31)
    last.test_score_thresh = 0.999
    check_detections(detector, ImageToDetections(detector), (96, 128), at_least=0)
    found = ImageToDetections(detector)(blurred_noise(96, 128).float())
    assert found["boxes"].shape == (0, 4) and found["classes"].shape == (0,)


def test_one_regression_and_one_mask_for_all_classes():
    config = CONFIGS["mask_rcnn"]()
    config.roi_heads.box_predictor.cls_agnostic_bbox_reg = True
    config.roi_heads.mask_head.num_classes = 1
    torch.manual_seed(0)
    detector = instantiate(config).eval()
    detector.roi_heads.box_predictor.cls_score.weight.data *= 30
    check_detections(detector, ImageToDetections(detector), (96, 128))


def test_weights_that_are_not_finite_find_nothing_as_in_the_detector():
    detector = lively_detector("mask_rcnn")
    detector.roi_heads.box_predictor.bbox_pred.bias.data.fill_(float("nan"))
    check_detections(detector, ImageToDetections(detector), (96, 128), at_least=0)


def test_the_detector_is_left_as_it_was(detector):
    names = [name for name, _ in detector.named_modules()]
    before = copy.deepcopy(detector.state_dict())
    exported = ImageToDetections(detector.train())
    detector.eval()
    assert not any(module.training for module in exported.modules())
    with torch.no_grad():
        next(exported.parameters()).zero_()
    assert [name for name, _ in detector.named_modules()] == names
    after = detector.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("size", SIZES)
def test_maps_are_those_of_the_detector(size):
    detector = lively_detector("mask_rcnn")
    images = torch.stack([blurred_noise(*size, seed=seed).float() for seed in range(2)])
    with torch.no_grad():
        batch = detector.preprocess_image([{"image": image} for image in images])
        expected = detector.backbone(batch.tensor)
        found = ImagesToMaps(detector)(images)
    assert list(found) == list(expected) == ["p2", "p3", "p4", "p5", "p6"]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


class Holder(nn.Module):
    """What has a backbone and statistics of pixels."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.register_buffer("pixel_mean", torch.full((3, 1, 1), 100.0))
        self.register_buffer("pixel_std", torch.full((3, 1, 1), 50.0))


def test_other_pyramids_and_bare_backbones():
    def bottom_up():
        return IwinTransformer(embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=3)

    taken = ["res3", "res4", "res5"]
    pyramid = FPN(bottom_up(), taken, 8, top_block=LastLevelP6P7(64, 8))
    images = torch.rand(1, 3, 70, 101) * 255
    with torch.no_grad():
        maps = ImagesToMaps(Holder(pyramid))(images)
        assert {name: tuple(value.shape[2:]) for name, value in maps.items()} == {
            "p3": (12, 16),
            "p4": (6, 8),
            "p5": (3, 4),
            "p6": (2, 2),
            "p7": (1, 1),
        }
        bare = bottom_up().eval()
        maps, expected = ImagesToMaps(Holder(bare))(images), bare((images - 100) / 50)
    for name, value in expected.items():  # which asks for no padding
        torch.testing.assert_close(maps[name], value)


def test_other_models_are_named():
    with pytest.raises(ConfigError, match="a Linear without backbone, pixel_mean, pixel_std"):
        ImagesToMaps(nn.Linear(1, 1))
    detector = lively_detector("faster_rcnn")

    class Other(type(detector.roi_heads)):
        pass

    detector.roi_heads.__class__ = Other
    with pytest.raises(ConfigError, match="a GeneralizedRCNN with Other: export its backbone"):
        ImageToDetections(detector)
    detector.roi_heads.__class__ = Other.__mro__[1]
    detector.roi_heads.keypoint_on = True
    with pytest.raises(ConfigError, match="Keypoints cannot be exported"):
        ImageToDetections(detector)


@pytest.mark.skipif(not USE_DETECTRON2, reason="native has no other detectors than two-stage ones")
def test_other_detectors_of_detectron2():
    from detectron2 import model_zoo

    with torch.device("meta"):
        model = instantiate(model_zoo.get_config("COCO-Detection/retinanet_R_50_FPN_1x.py").model)
        assert ImagesToMaps(model).backbone.top_block.num_levels == 2
    with pytest.raises(ConfigError, match="a RetinaNet: export its backbone alone"):
        ImageToDetections(model)
