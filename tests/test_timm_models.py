"""Iwin's classifiers in timm: registered when both are imported, and what its users call."""

import importlib
import importlib.util
import logging
import subprocess
import sys

import pytest
import torch

from iwin_d2 import timm_registration
from iwin_d2.modeling import iwin_classifier
from iwin_d2.modeling.published import IMAGE_CLASSIFIERS

TINY = "iwin_tiny_patch4_window7_224"
SMALL = {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}

needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="timm is not installed"
)


# ---- registration, with a package in timm's place -----------------------------------------------


@pytest.fixture
def other_timm(tmp_path, monkeypatch):
    """An importable package of timm's name, not imported yet; restores everything."""
    (tmp_path / "timm.py").write_text("loaded = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if not is_ours(f)])
    for name in [name for name in sys.modules if name.split(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    yield
    sys.modules.pop("timm", None)


def is_ours(finder):
    return type(finder).__module__ == timm_registration.__name__


def test_after_the_import_of_timm(other_timm, monkeypatch):
    registered = []
    monkeypatch.setattr(timm_registration, "_register", lambda: registered.append("timm"))
    timm_registration.register_when_imported()
    timm_registration.register_when_imported()
    spec = importlib.util.find_spec("timm")  # looking is not importing
    assert spec.loader.get_filename() == spec.origin
    assert not registered and sum(map(is_ours, sys.meta_path)) == 1
    import timm

    assert timm.loaded and registered == ["timm"]
    assert not any(map(is_ours, sys.meta_path))
    # It looks as if nobody had been there.
    assert type(timm.__loader__) is type(timm.__spec__.loader) is type(pytest.__loader__)
    timm_registration.register_when_imported()
    assert registered == ["timm"] * 2


def test_what_cannot_be_registered_does_not_keep_timm_from_its_users(other_timm, caplog):
    sys.modules.pop("iwin_d2.timm_models", None)
    timm_registration.register_when_imported()
    with caplog.at_level(logging.WARNING):
        import timm

    assert timm.loaded
    assert "Iwin's models are not registered with timm: No module named 'timm." in caplog.text


def test_importing_this_package_loads_neither_timm_nor_pytorch():
    code = "import iwin_d2, sys; print([n for n in ('timm', 'torch') if n in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip() == "[]"


# ---- timm itself --------------------------------------------------------------------------------


@pytest.fixture
def timm():
    return importlib.import_module("timm")


def small(timm, **kwargs):
    torch.manual_seed(0)
    return timm.create_model(TINY, **{**SMALL, **kwargs})


@needs_timm
def test_every_published_classifier_is_a_model(timm):
    assert set(timm.list_models("iwin_*")) == set(IMAGE_CLASSIFIERS)
    with torch.device("meta"):
        model = timm.create_model("iwin_small_patch4_window16_1024")
        ours = iwin_classifier("iwin_small_patch4_window16_1024")
    assert model.state_dict().keys() == ours.state_dict().keys()
    assert model.layers[3].blocks[0].attn.num_heads == 16  # 3, 4, 8, 16
    assert model.default_cfg["input_size"] == (3, 1024, 1024)


@needs_timm
@pytest.mark.parametrize("indices", [(0, 1, 2, 3), (1, 2), (-1,), (0,)])
def test_features_only(timm, indices):
    features = small(timm, features_only=True, out_indices=indices).train()
    maps = features(images := torch.randn(1, 3, 97, 130))
    taken = [index % 4 for index in indices]
    assert features.feature_info.channels() == [16 * 2**i for i in taken]
    assert features.feature_info.reduction() == [4 * 2**i for i in taken]
    for index, found in zip(taken, maps, strict=True):
        stride = 4 * 2**index
        assert found.shape == (1, 16 * 2**index, *(-(-side // stride) for side in (97, 130)))
    sum(found.sum() for found in maps).backward()
    assert all(p.grad is not None for p in features.parameters())  # nothing left over
    whole = small(timm).eval()
    with torch.no_grad():
        expected = whole.forward_intermediates(images, list(indices), intermediates_only=True)
        for found, other in zip(features.eval()(images), expected, strict=True):
            torch.testing.assert_close(found, other, rtol=1e-4, atol=1e-5)


@needs_timm
def test_intermediates_end_in_the_features(timm):
    model, images = small(timm).eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features, maps = model.forward_intermediates(images, 1, norm=True)
        assert len(maps) == 1 and torch.equal(features, maps[0])
        torch.testing.assert_close(features, model.forward_features(images))
    with pytest.raises(ValueError, match=r"indices of 4 stages, got \[4\]"):
        model.forward_intermediates(images, [4])


@needs_timm
def test_what_scripts_ask_of_a_model(timm):
    from timm.optim import create_optimizer_v2

    model, images = (
        small(timm, num_classes=7, drop_rate=0.5, drop_path_rate=0.1),
        torch.ones(1, 3, 32, 32),
    )
    model.set_grad_checkpointing()
    assert all(stage.use_checkpoint for stage in model.layers)
    assert not torch.equal(model.train()(images), model(images))  # dropout
    assert model.get_classifier() is model.head
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-3, layer_decay=0.5, weight_decay=0.05)
    scales = {
        name: group["lr_scale"]
        for group in optimizer.param_groups
        for name, p in model.named_parameters()
        if any(p is other for other in group["params"])
    }
    assert scales["patch_embed.proj.weight"] < scales["layers.0.blocks.0.mlp.fc1.weight"]
    assert scales["layers.2.blocks.0.mlp.fc1.weight"] < scales["layers.2.blocks.1.mlp.fc1.weight"]
    assert scales["head.weight"] == 1
    model.reset_classifier(0, "")
    assert model(images).shape == (1, 128, 1, 1)
    with pytest.raises(ValueError, match="global_pool can only be avg"):
        model.reset_classifier(3, "max")


@needs_timm
def test_pretrained_weights_by_name_and_by_file(timm, tmp_path, monkeypatch):
    original = iwin_classifier(TINY)
    torch.save({"model": original.state_dict()}, tmp_path / f"{TINY}.pth")
    monkeypatch.setenv("IWIN_D2_WEIGHTS_URL", str(tmp_path))
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    model = timm.create_model(TINY, pretrained=True)
    assert all(torch.equal(v, original.state_dict()[k]) for k, v in model.state_dict().items())
    overlay = {"file": str(tmp_path / f"{TINY}.pth")}
    model = timm.create_model(
        TINY, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=3, in_chans=1
    )
    assert model.head.weight.shape == (3, 768)
    assert torch.equal(model.norm.weight, original.norm.weight)
    gray = original.patch_embed.proj.weight.sum(1, keepdim=True)
    torch.testing.assert_close(model.patch_embed.proj.weight, gray)
    features = timm.create_model(TINY, pretrained=True, features_only=True)
    weight = features.model.layers[3].blocks[1].mlp.fc2.weight
    assert torch.equal(weight, original.layers[3].blocks[1].mlp.fc2.weight)
