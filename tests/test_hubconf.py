"""torch.hub on this repository."""

import importlib.util
from pathlib import Path

import pytest
import torch

from iwin_d2.modeling import IwinTransformer, iwin_classifier
from iwin_d2.modeling.published import IMAGE_CLASSIFIERS, VIDEO_CLASSIFIERS

ROOT = Path(__file__).resolve().parents[1]
TINY = "iwin_tiny_patch4_window7_224"
VIDEO = "iwin_tiny_patch244_window77_kinetics400_1k"
SMALL = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}


def load(name, **kwargs):
    return torch.hub.load(str(ROOT), name, source="local", **kwargs)


def test_every_entry_is_a_published_classifier_or_a_backbone():
    spec = importlib.util.spec_from_file_location("hubconf", ROOT / "hubconf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # As torch.hub.list finds them.
    entries = {n for n in dir(module) if callable(getattr(module, n)) and not n.startswith("_")}
    sizes = {f"iwin_{size}" for size in ("tiny", "small", "base", "large")}
    assert entries == {*IMAGE_CLASSIFIERS, *VIDEO_CLASSIFIERS, *sizes}
    assert "The classifier" in getattr(module, TINY).__doc__
    for name in module.dependencies:
        assert importlib.util.find_spec(name) is not None, name


def test_classifiers_and_backbones():
    with torch.no_grad():
        assert load(TINY, num_classes=3, **SMALL)(torch.randn(2, 3, 32, 40)).shape == (2, 3)
        video = load(VIDEO, num_classes=5, **SMALL)
        assert video(torch.randn(1, 3, 4, 32, 32)).shape == (1, 5)
        backbone = load("iwin_small", out_features=["res3"], **SMALL)
        assert isinstance(backbone, IwinTransformer)
        assert backbone(torch.randn(1, 3, 32, 32))["res3"].shape == (1, 32, 4, 4)


def test_weights_of_published_names_and_of_files(tmp_path, monkeypatch):
    original = iwin_classifier(TINY)
    torch.save({"model": original.state_dict()}, tmp_path / f"{TINY}.pth")
    monkeypatch.setenv("IWIN_D2_WEIGHTS_URL", str(tmp_path))
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    model = load(TINY, pretrained=True, num_classes=3)
    state = {name: value for name, value in model.state_dict().items() if "head" not in name}
    assert all(torch.equal(value, original.state_dict()[name]) for name, value in state.items())
    assert model.head.weight.shape == (3, 768) and len(state) == 182
    backbone = load("iwin_tiny", weights=str(tmp_path / f"{TINY}.pth"))
    weight = original.layers[3].blocks[1].mlp.fc2.weight
    assert torch.equal(backbone.layers[3].blocks[1].mlp.fc2.weight, weight)
    assert isinstance(backbone, IwinTransformer)


def test_an_unknown_name():
    with pytest.raises(RuntimeError, match="iwin_huge"):
        load("iwin_huge")
