"""The video backbone and classifier: shapes, clips of any length, inflation, their contract."""

import gzip
import json
import math
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import nn

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.config import LazyConfig, instantiate
from iwin_d2.errors import ConfigError
from iwin_d2.modeling import (
    IwinClassifier,
    IwinTransformer,
    IwinTransformer3D,
    VideoClassifier,
    inflate_2d_to_3d,
    iwin_video_classifier,
)
from iwin_d2.ops import use_backend

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "window_size": 3}
SHALLOW = {"depths": [1, 1, 1, 1]}


def small(**kwargs):
    torch.manual_seed(0)
    return IwinTransformer3D(**{"num_frames": 8, **SETTINGS, **kwargs})


def classifier(**kwargs):
    torch.manual_seed(0)
    return VideoClassifier(small(), 5, **kwargs)


def lively(model):
    """Attention far from uniform and frames that differ."""
    for stage in model.layers:
        for block in stage.blocks:
            block.attn.qkv.weight.data *= 20
            nn.init.normal_(block.attn.qkv.bias)
    return model.eval()


# ---- the published ones -------------------------------------------------------------------------


def manifests():
    with gzip.open(ROOT / "tests/golden/published_manifests.json.gz") as file:
        return json.load(file)["vid"]


@pytest.mark.parametrize("name", manifests())
def test_published_keys_and_shapes(name):
    with torch.device("meta"), mock.patch.object(nn.init, "trunc_normal_"):
        model = iwin_video_classifier(name)
    published = manifests()[name]
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert ours == published["state_dict"]
    assert sum(p.numel() for p in model.parameters()) == published["params"]
    assert [s.blocks[0].attn.num_heads for s in model.backbone.layers] == [3, 6, 12, 24]
    assert model.cls_head.dropout.p == 0.5


def test_a_published_one_with_changes():
    with torch.device("meta"):
        model = iwin_video_classifier(
            "iwin_tiny_patch244_window77_kinetics400_1k", num_classes=7, dropout=0.1, num_frames=64
        )
    assert model.num_classes == 7 and model.cls_head.dropout.p == 0.1
    assert model.backbone.time_embed.shape == (1, 96, 32, 1, 1)
    with pytest.raises(ConfigError, match="Did you mean iwin_tiny_patch244_window77_kinetics400"):
        iwin_video_classifier("iwin_tiny_patch244")


# ---- clips of any size --------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize(
    "size", [(2, 1, 1), (3, 5, 33), (8, 31, 64), (5, 40, 24), (11, 64, 33), (32, 8, 8)]
)
def test_any_clip(size, backend):
    model = small(window_size=7).eval()
    with torch.no_grad(), use_backend(backend):
        out = model(torch.randn(2, 3, *size))
    assert out.shape == (2, 128, *(math.ceil(n / s) for n, s in zip(size, (2, 32, 32))))
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("shape", [(1, 3, 1, 32, 32), (2, 3, 0, 32, 32)])
def test_a_clip_shorter_than_a_patch(shape):
    frames = shape[2]
    with pytest.raises(
        ValueError, match=f"at least 2 frames, as many as a patch has, got {frames}"
    ):
        small()(torch.randn(shape))
    with pytest.raises(ValueError, match="at least 2 frames"):
        classifier()(torch.randn(shape).unsqueeze(1))


def test_patches_of_one_frame_take_a_single_one():
    assert small(patch_size=(1, 4, 4))(torch.randn(1, 3, 1, 32, 32)).shape == (1, 128, 1, 1, 1)


@pytest.mark.parametrize("shape", [(1, 2, 8, 32, 32), (3, 8, 32, 32), (1, 1, 1, 3, 8, 32, 32)])
def test_clips_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"\[B, 3, T, H, W\], got shape"):
        small()(torch.randn(shape))


def test_an_odd_clip_ends_with_a_frame_of_zeros():
    model, clip = lively(small()), torch.randn(1, 3, 7, 33, 30)
    with torch.no_grad():
        padded = F.pad(clip, (0, 2, 0, 3, 0, 1))
        torch.testing.assert_close(model(clip), model(padded), rtol=1e-4, atol=1e-4)


def test_windows_shrink_each_side_on_its_own():
    model = lively(small(window_size=(7, 5)))
    windows = []
    for stage in model.layers:
        stage.blocks[0].attn.register_forward_hook(
            lambda attn, args, out: windows.append(attn.window_of(args[0]))
        )
    with torch.no_grad():
        model(torch.randn(1, 3, 4, 48, 24))
    assert windows == [(7, 5), (6, 3), (3, 2), (2, 1)]


def test_the_time_embedding_tells_frames_from_each_other():
    model, still = lively(small()), torch.randn(1, 3, 1, 32, 32).expand(-1, -1, 8, -1, -1)
    with torch.no_grad():
        assert model(still).std(2).max() < 1e-4
        nn.init.normal_(model.time_embed)
        assert model(still).std(2).max() > 1e-1


@pytest.mark.parametrize("frames", [4, 7, 8, 16, 30])
def test_the_time_embedding_is_interpolated_to_other_lengths(frames):
    model = small()
    nn.init.normal_(model.time_embed)
    steps = math.ceil(frames / 2)
    seen = model._time_embedding(steps)
    assert seen.shape == (1, steps, 1, 1, 16)
    # By hand: the centre of each step, on the axis of the four that there are.
    for step in range(steps):
        at = min(max((step + 0.5) * 4 / steps - 0.5, 0), 3)
        low = min(int(at), 2)
        one, other = (model.time_embed[0, :, index, 0, 0] for index in (low, low + 1))
        torch.testing.assert_close(seen[0, step, 0, 0], one + (at - low) * (other - one))
    with torch.no_grad():
        assert model.eval()(torch.randn(1, 3, frames, 32, 32)).shape[2] == steps


# ---- classification -----------------------------------------------------------------------------


def test_views_of_a_video_are_averaged_after_the_softmax():
    model = classifier().eval()
    nn.init.normal_(model.cls_head.fc_cls.weight)
    videos = torch.randn(2, 3, 3, 4, 32, 40)
    with torch.no_grad():
        scores = model(videos)
        single = [model(view).softmax(-1) for view in videos.unbind(1)]
    torch.testing.assert_close(scores, torch.stack(single).mean(0))
    torch.testing.assert_close(scores.sum(-1), torch.ones(2))
    assert model(videos[:, 0]).shape == (2, 5)


def test_so_many_clips_at_once():
    model, videos = classifier(clips_at_once=4).eval(), torch.randn(3, 3, 3, 4, 16, 16)
    counts = []
    model.backbone.register_forward_hook(lambda _, args, out: counts.append(len(args[0])))
    with torch.no_grad():
        scores = model(videos)
        model.clips_at_once = None
        torch.testing.assert_close(scores, model(videos))
    assert counts == [4, 4, 1, 9]


def test_probabilities_are_precise_in_half_precision():
    model = classifier().eval().bfloat16()
    scores = model(torch.randn(1, 2, 3, 4, 16, 16, dtype=torch.bfloat16))
    assert scores.dtype == torch.float32


def test_dropout_is_for_training_alone():
    model, clip = classifier(dropout=0.9), torch.randn(1, 3, 4, 16, 16)
    with torch.no_grad():
        assert not torch.equal(model.train()(clip), model(clip))
        assert torch.equal(model.eval()(clip), model(clip))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small(depths=[1, 1, 1]), "four stages"),
        (lambda: small(patch_size=(4, 4)), r"\(frames, height, width\), got patch_size=\(4, 4\)"),
        (lambda: small(num_frames=1), "num_frames=1 is less than the 2 frames of a patch"),
        (lambda: small(freeze_at=6), "freeze_at"),
        (lambda: small(window_size=(7, 0)), r"positive integer or a pair of them, got \(7, 0\)"),
        (lambda: VideoClassifier(small(), 0), "num_classes must be positive, got 0"),
        (lambda: classifier(clips_at_once=0), "clips_at_once must be positive or None, got 0"),
        (lambda: classifier()(torch.randn(3, 8, 32, 32)), r"\[B, views, 3, T, H, W\], got shape"),
        (lambda: classifier()(torch.randn(1, 0, 3, 8, 32, 32)), "got shape"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_from_a_lazy_config_that_was_saved(tmp_path):
    backbone = L(IwinTransformer3D)(**SETTINGS, patch_size=(2, 4, 4))
    config = L(VideoClassifier)(backbone=backbone, num_classes=5)
    config.backbone.window_size = [3, 2]
    LazyConfig.save(OmegaConf.create({"model": config}), str(tmp_path / "config.yaml"))
    model = instantiate(LazyConfig.load(str(tmp_path / "config.yaml")).model).eval()
    assert model.backbone.layers[0].blocks[0].attn.window_of(torch.ones(1, 9, 9, 16)) == (3, 2)
    assert model(torch.randn(1, 3, 4, 32, 32)).shape == (1, 5)


# ---- training -----------------------------------------------------------------------------------


def test_every_parameter_gets_a_finite_gradient():
    model = VideoClassifier(small(drop_path_rate=0.1), 5, dropout=0.2).train()
    loss = F.cross_entropy(model(torch.randn(4, 3, 7, 40, 33)), torch.arange(4))
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0 or "qkv.bias" in name, name


def test_mixed_precision():
    model = classifier(dropout=0).train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(torch.randn(2, 3, 6, 48, 40))
    assert logits.dtype == torch.bfloat16
    logits.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores = model.eval()(torch.randn(2, 3, 3, 6, 48, 40))
    torch.testing.assert_close(scores.sum(-1), torch.ones(2))


def test_activation_checkpointing_changes_nothing_but_memory():
    gradients, stored = [], []
    for use_checkpoint in (True, False):
        model = small(drop_path_rate=0.3, use_checkpoint=use_checkpoint).train()
        torch.manual_seed(3)  # the same drop paths
        total = 0

        def pack(x):
            nonlocal total
            total += x.numel() * x.element_size()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            loss = (model(torch.ones(2, 3, 6, 40, 48)) ** 2).sum()
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
        stored.append(total)
    for ours, expected in zip(*gradients):
        torch.testing.assert_close(ours, expected)
    assert stored[0] < 0.4 * stored[1]


@pytest.mark.parametrize("freeze_at", range(6))
def test_freeze_at_survives_train(freeze_at):
    model = small(freeze_at=freeze_at, drop_path_rate=0.5).train()
    for index, part in enumerate([model.patch_embed, *model.layers, model.norm]):
        frozen = index < freeze_at
        assert all(module.training is not frozen for module in part.modules())
        assert all(p.requires_grad is not frozen for p in part.parameters())
    assert model.time_embed.requires_grad is (freeze_at == 0)


# ---- inflation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [8, 6])
def test_inflated_a_still_clip_gives_what_the_image_gives(frames):
    torch.manual_seed(1)
    image_model = lively(IwinClassifier(num_classes=9, img_size=96, **SETTINGS))
    model = small().eval()
    missing, unexpected = model.load_state_dict(
        inflate_2d_to_3d(image_model.state_dict()), strict=False
    )
    assert missing == ["time_embed"] and not unexpected
    images = torch.randn(2, 3, 90, 70)
    with torch.no_grad():
        expected = image_model.forward_features(images)
        found = model(images.unsqueeze(2).expand(-1, -1, frames, -1, -1))
    assert found.shape[2] == frames // 2
    for frame in found.unbind(2):
        torch.testing.assert_close(frame, expected, rtol=1e-4, atol=1e-4)


def test_inflated_a_moving_clip_sees_the_mean_of_two_frames():
    """In each patch, before blocks mix the frames."""
    image_model = IwinClassifier(num_classes=9, img_size=96, **SETTINGS).eval()
    model = small(patch_size=(3, 4, 4)).eval()
    model.load_state_dict(inflate_2d_to_3d(image_model.state_dict(), 3), strict=False)
    clip = torch.randn(1, 3, 6, 16, 16)
    with torch.no_grad():
        found = model.patch_embed(clip)
        for step in range(2):
            mean = clip[:, :, 3 * step : 3 * step + 3].mean(2)
            expected = image_model.patch_embed(mean)
            torch.testing.assert_close(found[:, step], expected, rtol=1e-4, atol=1e-5)


def test_inflation_copies_all_but_heads_and_norms_of_outputs():
    state = IwinTransformer(**SETTINGS).state_dict()
    inflated = inflate_2d_to_3d(state)
    assert set(state) - set(inflated) == {
        f"norm{i}.{part}" for i in range(4) for part in ("weight", "bias")
    }
    missing, unexpected = small().load_state_dict(inflated, strict=False)
    assert missing == ["time_embed", "norm.weight", "norm.bias"] and not unexpected
    assert (
        inflated["layers.0.blocks.0.attn.qkv.weight"] is state["layers.0.blocks.0.attn.qkv.weight"]
    )
    assert "head.weight" not in inflate_2d_to_3d(IwinClassifier(**SETTINGS).state_dict())


def test_what_cannot_be_inflated():
    with pytest.raises(ValueError, match=r"four dimensions, got shape \(16, 3, 2, 4, 4\)"):
        inflate_2d_to_3d(small().state_dict())
    with pytest.raises(ValueError, match="got no such tensor"):
        inflate_2d_to_3d(nn.Linear(2, 2).state_dict())
    with pytest.raises(ValueError, match="patch_depth must be positive, got 0"):
        inflate_2d_to_3d(IwinClassifier(**SETTINGS).state_dict(), 0)


# ---- graphs -------------------------------------------------------------------------------------


def test_compiles_to_one_graph():
    torch.compiler.reset()
    model = VideoClassifier(small(**SHALLOW), 5).eval()
    nn.init.normal_(model.backbone.time_embed)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    clips = torch.randn(2, 3, 7, 33, 57)
    with torch.no_grad():
        torch.testing.assert_close(compiled(clips), model(clips), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_exports_with_dynamic_sizes():
    model = VideoClassifier(small(**SHALLOW), 5).eval()
    nn.init.normal_(model.backbone.time_embed)
    # Of odd counts of frames the exporter cannot tell that the steps divide what follows.
    batch, frames = torch.export.Dim("batch", min=2), 2 * torch.export.Dim("steps", min=2)
    least = 32 * (3 - 1) + 1  # the last map is to have three tokens, as the window
    sides = {3: torch.export.Dim("height", min=least), 4: torch.export.Dim("width", min=least)}
    program = torch.export.export(
        model, (torch.randn(2, 3, 8, 96, 128),), dynamic_shapes=({0: batch, 2: frames, **sides},)
    )
    assert "iwin_d2" not in str(program.graph)
    for count, size in ((2, (8, 96, 128)), (3, (4, 65, 131)), (2, (12, 97, 65))):
        clips = torch.randn(count, 3, *size)
        with torch.no_grad():
            expected = model(clips)
        torch.testing.assert_close(program.module()(clips), expected, rtol=1e-4, atol=1e-4)
