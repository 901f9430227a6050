"""Image and video classifiers give what the reference implementation gave with its weights."""

from pathlib import Path

import pytest
import torch

from iwin_d2.modeling import IwinClassifier, IwinTransformer3D, VideoClassifier
from iwin_d2.ops import use_backend

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CLOSE = 1e-5  # of the largest value


def golden(name):
    return torch.load(GOLDEN / f"{name}.pt", weights_only=True)


def with_weights(model, state_dict):
    model.load_state_dict({name: value.float() for name, value in state_dict.items()})
    return model.eval()


def backbone_of(config):
    settings = {key: value for key, value in config.items() if key != "patch_norm"}
    return IwinTransformer3D(**settings)


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() < CLOSE * expected.abs().max()


@pytest.fixture(scope="module")
def image_models():
    return golden("iwin_classifier")["models"]


@pytest.fixture(scope="module")
def video_backbone():
    return golden("iwin3d_backbone")


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("index", [0, 1], ids=["224 pixels", "384 pixels"])
def test_image_classifier(image_models, index, backend):
    expected = image_models[index]
    model = with_weights(IwinClassifier(**expected["config"]), expected["state_dict"])
    with torch.no_grad(), use_backend(backend):
        features = model.forward_features(expected["input"].float())
        assert_close(model.forward_head(features, pre_logits=True), expected["features"])
        assert_close(model(expected["input"].float()), expected["logits"])


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("case", [0, 1])
def test_video_backbone(video_backbone, case, backend):
    model = with_weights(backbone_of(video_backbone["config"]), video_backbone["state_dict"])
    case = video_backbone["cases"][case]
    with torch.no_grad(), use_backend(backend):
        assert_close(model(case["input"].float()), case["output"])


@pytest.mark.parametrize("clips_at_once", [None, 2])
def test_video_classifier_on_several_views(video_backbone, clips_at_once):
    expected = golden("video_recognizer")
    backbone = backbone_of(video_backbone["config"])
    model = VideoClassifier(backbone, expected["num_classes"], clips_at_once=clips_at_once)
    model = with_weights(model, expected["state_dict"])
    with torch.no_grad():
        assert_close(model(expected["input"].float()), expected["scores"])
