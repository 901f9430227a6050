"""The image classifier: shapes, sizes, and the contract its users rely on."""

import gzip
import json
import shutil
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import nn

from iwin_d2.checkpoint.published import PUBLISHED
from iwin_d2.errors import ConfigError
from iwin_d2.modeling import IwinClassifier, iwin_classifier
from iwin_d2.modeling.published import IMAGE_CLASSIFIERS
from iwin_d2.ops import use_backend

ROOT = Path(__file__).resolve().parents[2]

needs_compiler = pytest.mark.skipif(
    shutil.which("c++") is None, reason="torch.compile's CPU backend needs a C++ compiler"
)


def small(**kwargs):
    torch.manual_seed(0)
    settings = {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4]}
    return IwinClassifier(
        **{"num_classes": 5, "img_size": 64, "window_size": 3, **settings, **kwargs}
    )


def convolutions(model):
    return [stage.blocks[0].dwconv is not None for stage in model.layers]


def on_meta(name, **kwargs):
    with torch.device("meta"), mock.patch.object(nn.init, "trunc_normal_"):
        return iwin_classifier(name, **kwargs)


# ---- the published ones -------------------------------------------------------------------------


def manifests():
    with gzip.open(ROOT / "tests/golden/published_manifests.json.gz") as file:
        return json.load(file)["cls"]


@pytest.mark.parametrize("name", manifests())
def test_published_keys_and_shapes(name):
    # The large one is a manifest of 1000 classes; it was published with those of ImageNet-22K.
    model = on_meta(name if name in IMAGE_CLASSIFIERS else f"{name}_22kto1k")
    published = manifests()[name]
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert ours == published["state_dict"]
    assert sum(p.numel() for p in model.parameters()) == published["params"]


def test_builders_and_checkpoints_agree_on_every_published_classifier():
    """On heads, too, which leave no trace in shapes."""
    known = {n: p for n, p in PUBLISHED.items() if p.architecture.task == "image classifier"}
    assert set(known) == set(IMAGE_CLASSIFIERS)
    for name, published in known.items():
        settings = IMAGE_CLASSIFIERS[name]
        assert settings["num_heads"] == published.num_heads, name
        assert settings["window_size"] == published.window_size, name
        assert settings["num_classes"] == (published.architecture.num_classes or 21841), name
        assert convolutions(on_meta(name)) == [True] * 3 + [published.last_depthwise], name


def test_heads_of_the_small_ones():
    def heads(model):
        return [stage.blocks[0].attn.num_heads for stage in model.layers]

    assert heads(on_meta("iwin_small_patch4_window16_512")) == [3, 4, 8, 16]
    assert heads(on_meta("iwin_small_patch4_window7_224", num_heads=(3, 6, 12, 24))) == [
        3,
        6,
        12,
        24,
    ]
    assert heads(on_meta("iwin_tiny_patch4_window7_224")) == [3, 6, 12, 24]
    assert heads(on_meta("iwin_base_patch4_window7_224")) == [4, 8, 16, 32]


def test_a_misspelt_name_is_one_sentence():
    with pytest.raises(ConfigError, match=r"Did you mean iwin_tiny_patch4_window7_224\?"):
        iwin_classifier("iwin_tiny_patch4_window7_242")


# ---- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("img_size", "window_size", "expected"),
    [
        (224, 7, [True, True, True, False]),
        (384, 12, [True, True, True, False]),
        (1024, 16, [True, True, True, True]),
        (32, 7, [True, False, False, False]),
        (225, 7, [True, True, True, True]),  # the last map has 8 x 8 tokens
    ],
)
def test_a_stage_has_the_convolution_if_its_map_is_larger_than_the_window(
    img_size, window_size, expected
):
    assert convolutions(small(img_size=img_size, window_size=window_size)) == expected


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (31, 33), (64, 40), (97, 131)])
def test_any_image_size(size, backend):
    model = small(window_size=7).eval()
    with torch.no_grad(), use_backend(backend):
        features = model.forward_features(torch.randn(2, 3, *size))
        assert features.shape == (2, 128, *(-(-side // 32) for side in size))
        logits = model.forward_head(features)
    assert logits.shape == (2, 5) and torch.isfinite(logits).all()


def lively(model):
    """Attention far from uniform, so that windows tell."""
    for stage in model.layers:
        for block in stage.blocks:
            block.attn.qkv.weight.data *= 20
            nn.init.normal_(block.attn.qkv.bias)
    return model.eval()


def test_a_window_is_not_larger_than_the_map():
    """On maps of 8 x 6, 4 x 3, 2 x 2 and 1 x 1 windows of 99 are those of the map."""
    model = lively(small(window_size=99, img_size=9999))
    attended = []
    for stage in model.layers:
        stage.blocks[0].attn.register_forward_hook(
            lambda attn, args, out: attended.append(attn.window_of(args[0]))
        )
    images = torch.randn(1, 3, 32, 24)
    with torch.no_grad():
        logits = model(images)
        assert attended == [(8, 6), (4, 3), (2, 2), (1, 1)]
        # Shrunken, windows hold no padding, which would have changed the softmax.
        for stage in model.layers:
            for block in stage.blocks:
                block.attn.shrink_window, block.attn.window_size = False, 8
        assert not torch.allclose(model(images), logits, rtol=1e-3)


@pytest.mark.parametrize("size", [(64, 64), (40, 56)])
def test_one_operator_and_plain_pytorch_shrink_windows_alike(size):
    model = lively(small(window_size=7))
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        fused = model(images)
        with use_backend("reference"):
            torch.testing.assert_close(fused, model(images), rtol=1e-4, atol=1e-5)


# ---- heads --------------------------------------------------------------------------------------


def test_a_new_head():
    model = small()
    weight = model.head.weight
    model.reset_classifier(7)
    assert model.num_classes == 7 and model(torch.randn(1, 3, 32, 32)).shape == (1, 7)
    assert model.head.weight is not weight and model.head.bias.abs().max() == 0
    model.reset_classifier(0)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(images), model.forward_head(model.forward_features(images), True))
    assert small(num_classes=0)(images).shape == (2, model.num_features)
    assert model.double().reset_classifier(3) is None and model.head.weight.dtype == torch.float64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depths": [1, 1, 1]}, "four stages"),
        ({"num_heads": [3, 2, 2, 4]}, "16 channels cannot be split into 3 heads"),
        ({"freeze_at": 6}, "freeze_at"),
        ({"use_checkpoint": [True]}, "use_checkpoint"),
        ({"drop_path_rate": 2}, "drop_path_rate"),
        ({"num_classes": -1}, "num_classes must not be negative, got -1"),
        ({"window_size": (7, 7)}, r"window_size to be one side, got \(7, 7\)"),
        ({"img_size": 0}, "img_size to be a side in pixels, got 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)


def test_images_of_another_shape():
    with pytest.raises(ValueError, match=r"\[B, 5, H, W\].*\(1, 3, 16, 16\)"):
        small(in_chans=5)(torch.randn(1, 3, 16, 16))
    assert small(in_chans=5)(torch.randn(1, 5, 16, 16)).shape == (1, 5)


# ---- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("img_size", [32, 1024])
def test_every_parameter_gets_a_finite_gradient(img_size):
    model = small(img_size=img_size, drop_path_rate=0.2).train()
    loss = nn.functional.cross_entropy(model(torch.randn(4, 3, 40, 33)), torch.arange(4))
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0 or "qkv.bias" in name, name


def test_mixed_precision():
    model = small().train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(torch.randn(2, 3, 48, 40))
    assert logits.dtype == torch.bfloat16
    logits.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        images = torch.randn(2, 3, 48, 40)
        found = model.eval()(images)
    torch.testing.assert_close(found.float(), model(images), rtol=0.1, atol=0.02)


@pytest.mark.parametrize("use_checkpoint", [True, [True, False, False, True]])
def test_activation_checkpointing_changes_nothing_but_memory(use_checkpoint):
    gradients, stored = [], []
    for setting in (False, use_checkpoint):
        model = small(drop_path_rate=0.3, use_checkpoint=setting).train()
        torch.manual_seed(3)  # the same drop paths
        total = 0

        def pack(x):
            nonlocal total
            total += x.numel() * x.element_size()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            loss = (model(torch.ones(2, 3, 40, 48)) ** 2).sum()
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
        stored.append(total)
    for ours, expected in zip(*reversed(gradients)):
        torch.testing.assert_close(ours, expected)
    assert stored[1] < 0.6 * stored[0]


@pytest.mark.parametrize("freeze_at", range(6))
def test_freeze_at_survives_train(freeze_at):
    model = small(freeze_at=freeze_at, drop_path_rate=0.5).train()
    for index, part in enumerate([model.patch_embed, *model.layers, model.norm, model.head]):
        frozen = index < freeze_at
        assert all(module.training is not frozen for module in part.modules())
        assert all(p.requires_grad is not frozen for p in part.parameters())


def test_drop_path_grows_linearly_and_rests_in_eval():
    model = small(drop_path_rate=0.4)
    rates = [getattr(block.drop_path, "p", 0.0) for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), model(images))
        assert not torch.equal(model.train()(images), model(images))


# ---- graphs -------------------------------------------------------------------------------------


SHALLOW = {"depths": [1, 1, 1, 1]}


def test_compiles_to_one_graph():
    model = small(**SHALLOW).eval()
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    images = torch.randn(2, 3, 33, 57)  # on which windows shrink
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), model(images), rtol=1e-4, atol=1e-4)


@needs_compiler
@pytest.mark.slow
def test_compiles_for_changing_sizes():
    model = small().eval()
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        for size in ((64, 64), (33, 57), (128, 96), (100, 40)):
            images = torch.randn(2, 3, *size)
            torch.testing.assert_close(compiled(images), model(images), rtol=1e-4, atol=1e-4)


def test_exports_with_dynamic_sizes_on_which_no_window_shrinks():
    model = small(**SHALLOW).eval()
    batch = torch.export.Dim("batch", min=2)
    least = 32 * (3 - 1) + 1  # the last map is to have three tokens, as the window
    sides = {2: torch.export.Dim("height", min=least), 3: torch.export.Dim("width", min=least)}
    program = torch.export.export(
        model, (torch.randn(2, 3, 96, 128),), dynamic_shapes=({0: batch, **sides},)
    )
    assert "iwin_d2" not in str(program.graph)
    for count, size in ((2, (96, 128)), (3, (65, 131)), (4, (200, 65))):
        images = torch.randn(count, 3, *size)
        with torch.no_grad():
            expected = model(images)
        torch.testing.assert_close(program.module()(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_exports_a_fixed_size_on_which_windows_shrink():
    model, images = small(window_size=7, **SHALLOW).eval(), torch.randn(2, 3, 64, 40)
    program = torch.export.export(
        model, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},)
    )
    with torch.no_grad():
        for batch in (images, torch.randn(5, 3, 64, 40)):
            torch.testing.assert_close(program.module()(batch), model(batch), rtol=1e-4, atol=1e-4)
