"""A published UPerNet, loaded by load_pretrained, gives what the reference implementation gave."""

from pathlib import Path

import pytest
import torch
from segmenters import shrunken_upernet

from iwin_d2.checkpoint import convert_checkpoint, load_pretrained
from iwin_d2.d2.config import instantiate
from iwin_d2.modeling.semantic_segmentation import upsampled

FILE = Path(__file__).resolve().parents[2] / "golden" / "upernet.pt"
RELATIVE = 1e-5  # a tenth of what is asked for


@pytest.fixture(scope="module")
def golden():
    return torch.load(FILE, weights_only=True)


def make(golden):
    return instantiate(shrunken_upernet(golden["num_classes"])).eval()


@pytest.fixture(scope="module")
def model(golden):
    model = make(golden)
    report = load_pretrained(model, FILE)  # float16, as recorded, into float32
    assert len(report.loaded) == len(golden["state_dict"])
    assert not report.missing and not report.unexpected
    return model


@pytest.fixture(scope="module")
def expected(golden):
    (case,) = golden["cases"]
    return case


def apart(found, expected):
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("way", ["split", "plain"])
def test_logits(model, expected, way, monkeypatch):
    if way == "plain":
        monkeypatch.setattr(upsampled, "_can_split", lambda *args: False)
    with torch.no_grad():
        logits, losses = model.sem_seg_head(model.backbone(expected["input"].float()))
    assert losses == {}
    assert apart(logits, expected["logits"]) < RELATIVE


def test_auxiliary_logits(model, expected):
    with torch.no_grad():
        features = model.backbone(expected["input"].float())
        logits = model.sem_seg_head.auxiliary.layers(features)
    assert apart(logits, expected["aux_logits"]) < RELATIVE


def test_the_whole_segmenter(model, expected):
    """From pixels: the recorded input is normalised already."""
    image = expected["input"][0].float() * model.pixel_std + model.pixel_mean
    with torch.no_grad():
        (output,) = model([{"image": image}])
    assert apart(output["sem_seg"], expected["logits"][0]) < RELATIVE


def test_converted_weights_are_these(golden, model, tmp_path):
    converted = tmp_path / "converted.pth"
    convert_checkpoint(FILE, converted)
    other = make(golden)
    load_pretrained(other, converted)
    state = other.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
