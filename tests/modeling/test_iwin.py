"""The backbone: reference outputs, published shapes, and the contract its users rely on."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from iwin_d2.d2.modeling import Backbone
from iwin_d2.modeling import IwinTransformer, iwin_base, iwin_large, iwin_small, iwin_tiny
from iwin_d2.ops import use_backend

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SIZES = {"tiny": iwin_tiny, "small": iwin_small, "base": iwin_base, "large": iwin_large}

needs_compiler = pytest.mark.skipif(
    shutil.which("c++") is None, reason="torch.compile's CPU backend needs a C++ compiler"
)


def small_backbone(**kwargs):
    torch.manual_seed(0)
    settings = {"embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "window_size": 3}
    return IwinTransformer(**{**settings, **kwargs})


@pytest.fixture(scope="module")
def golden():
    return torch.load(GOLDEN / "iwin_backbone.pt", weights_only=True)


@pytest.fixture(scope="module")
def golden_model(golden):
    model = IwinTransformer(**golden["config"])
    model.load_state_dict({k: v.float() for k, v in golden["state_dict"].items()})
    return model.eval()


def relative_error(actual, expected):
    return ((actual - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("case", range(3))
def test_golden_outputs(golden, golden_model, case, backend):
    case = golden["cases"][case]
    with torch.no_grad(), use_backend(backend):
        outputs = golden_model(case["input"].float())
    for output, expected in zip(outputs.values(), case["outputs"], strict=True):
        assert output.shape == expected.shape
        assert relative_error(output, expected) < 1e-4


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_golden_gradients(golden, golden_model, backend):
    grad = golden["grad"]
    images = grad["input"].float().requires_grad_()
    golden_model.zero_grad()
    with use_backend(backend):
        outputs = golden_model(images)
    loss = grad["scale"] * sum(
        (output * cotangent.float()).sum()
        for output, cotangent in zip(outputs.values(), grad["cotangents"], strict=True)
    )
    loss.backward()
    assert relative_error(loss, grad["loss"]) < 1e-4
    assert relative_error(images.grad, grad["grad_input"]) < 1e-4
    parameters = dict(golden_model.named_parameters())
    assert len(grad["grad_params"]) == 5
    for name, expected in grad["grad_params"].items():
        assert relative_error(parameters[name].grad, expected) < 1e-4, name


@pytest.mark.parametrize("size", SIZES)
def test_published_keys_and_shapes(size):
    published = json.loads((GOLDEN / "backbone_manifests.json").read_text())[size]
    with torch.device("meta"):
        model = SIZES[size]()
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    if size == "large":  # known as a classifier only, which has no norm per output
        ours = {k: v for k, v in ours.items() if k[:5] not in ("norm0", "norm1", "norm2", "norm3")}
    assert ours == published


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (31, 33), (64, 40), (97, 131)])
def test_any_input_size(size):
    model = small_backbone(window_size=7).eval()
    with torch.no_grad():
        outputs = model(torch.randn(2, 3, *size))
    assert list(outputs) == ["res2", "res3", "res4", "res5"]
    for index, (name, output) in enumerate(outputs.items()):
        shape = model.output_shape()[name]
        assert shape.stride == 4 * 2**index
        expected = tuple(-(-side // shape.stride) for side in size)
        assert output.shape == (2, shape.channels, *expected)
        assert torch.isfinite(output).all()


def test_a_mistaken_head_count_computes_something_else():
    right, wrong = small_backbone(), small_backbone(num_heads=[2, 4, 4, 8])
    for block in (b for stage in right.layers for b in stage.blocks):
        block.attn.qkv.weight.data *= 20  # freshly initialised, attention is all but uniform
    wrong.load_state_dict(right.state_dict())
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert relative_error(wrong.eval()(image)["res5"], right.eval()(image)["res5"]) > 1e-3


def test_backbone_contract():
    model = small_backbone(out_features=["res4", "res3"])
    assert isinstance(model, Backbone)
    assert model.size_divisibility == 0
    assert {k: (s.channels, s.stride) for k, s in model.output_shape().items()} == {
        "res3": (16, 8),
        "res4": (32, 16),
    }
    assert model.train() is model


def test_no_parameter_is_without_gradient():
    for out_features in (["res2"], ["res3", "res4"], ["res2", "res5"]):
        model = small_backbone(out_features=out_features)
        sum(x.sum() for x in model(torch.randn(1, 3, 32, 32)).values()).backward()
        assert all(p.grad is not None for p in model.parameters()), out_features


@pytest.mark.parametrize("freeze_at", range(6))
def test_freeze_at_survives_train(freeze_at):
    model = small_backbone(freeze_at=freeze_at, drop_path_rate=0.5).train()
    parts = [model.patch_embed, *model.layers]
    for index, part in enumerate(parts):
        frozen = index < freeze_at
        assert all(module.training is not frozen for module in part.modules())
        assert all(p.requires_grad is not frozen for p in part.parameters())
    model.eval().train()
    assert all(part.training is (index >= freeze_at) for index, part in enumerate(parts))


@pytest.mark.parametrize("use_checkpoint", [True, [True, False, False, True]])
def test_activation_checkpointing_changes_nothing(use_checkpoint):
    plain = small_backbone(drop_path_rate=0.3).train()
    saving = small_backbone(drop_path_rate=0.3, use_checkpoint=use_checkpoint).train()
    images = torch.randn(2, 3, 40, 48)
    for model in (plain, saving):
        torch.manual_seed(3)  # the same drop paths
        sum((x**2).sum() for x in model(images).values()).backward()
    for (name, p), q in zip(plain.named_parameters(), saving.parameters()):
        torch.testing.assert_close(p.grad, q.grad, msg=name)


def test_activation_checkpointing_stores_less():
    def saved_bytes(model):
        total = 0

        def pack(x):
            nonlocal total
            total += x.numel() * x.element_size()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            model.train()(torch.randn(1, 3, 64, 64))
        return total

    assert saved_bytes(small_backbone(use_checkpoint=True)) < 0.5 * saved_bytes(small_backbone())


def test_in_chans():
    model = small_backbone(in_chans=5)
    assert model(torch.randn(1, 5, 16, 16))["res2"].shape == (1, 8, 4, 4)
    with pytest.raises(ValueError, match=r"\[B, 5, H, W\].*\(1, 3, 16, 16\)"):
        model(torch.randn(1, 3, 16, 16))


def test_drop_path_grows_linearly_and_rests_in_eval():
    model = small_backbone(drop_path_rate=0.4)
    rates = [getattr(block.drop_path, "p", 0.0) for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.eval()(images)["res5"], model(images)["res5"])
        assert not torch.equal(model.train()(images)["res5"], model(images)["res5"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depths": [1, 1, 1]}, "four stages"),
        ({"num_heads": [3, 2, 2, 4]}, "8 channels cannot be split into 3 heads"),
        ({"out_features": ["res1"]}, "out_features"),
        ({"freeze_at": 6}, "freeze_at"),
        ({"use_checkpoint": [True]}, "use_checkpoint"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        small_backbone(**settings)


def assert_compiled_equals_eager(model, backend, sizes):
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    with torch.no_grad():
        for size in sizes:
            images = torch.randn(1, 3, *size)
            for name, output in compiled(images).items():
                torch.testing.assert_close(output, model(images)[name], rtol=1e-4, atol=1e-4)


@needs_compiler
def test_compiles_to_one_graph():
    model = small_backbone(out_features=["res2", "res3"]).eval()
    assert_compiled_equals_eager(model, "inductor", [(33, 57)])


@needs_compiler
@pytest.mark.slow  # a second size compiles the whole model again, with symbolic sizes
def test_compiles_to_one_graph_for_changing_sizes():
    assert_compiled_equals_eager(small_backbone().eval(), "inductor", [(40, 48), (33, 57), (64, 9)])


def test_compiled_training_gives_the_same_gradients():
    settings = {"depths": [1, 1, 1, 1]}
    plain, model = small_backbone(**settings).train(), small_backbone(**settings).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    images = torch.randn(1, 3, 40, 48)
    for run in (plain, compiled):
        sum((x**2).sum() for x in run(images).values()).backward()
    for (name, p), q in zip(plain.named_parameters(), model.parameters()):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-4, msg=name)


def test_exports_with_dynamic_batch_height_and_width():
    model = small_backbone(embed_dim=16).eval()  # channels that the compiled operators serve
    # The exporter wants every dimension to be at least 2, the last stage's (H - 1) // 32 + 1 too.
    batch = torch.export.Dim("batch", min=2)
    height, width = torch.export.Dim("height", min=33), torch.export.Dim("width", min=33)
    program = torch.export.export(
        model, (torch.randn(2, 3, 96, 128),), dynamic_shapes=({0: batch, 2: height, 3: width},)
    )
    # It runs without the compiled operators, which are not part of it.
    assert "iwin_d2" not in str(program.graph)
    for count, size in ((2, (96, 128)), (3, (33, 131)), (4, (64, 33)), (2, (200, 232))):
        images = torch.randn(count, 3, *size)
        with torch.no_grad():
            for name, output in program.module()(images).items():
                torch.testing.assert_close(output, model(images)[name], rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")
def test_an_exported_file_runs_after_loading(tmp_path):
    model = small_backbone(out_features=["res2", "res3"]).eval()
    images = torch.randn(1, 3, 33, 57)
    torch.export.save(torch.export.export(model, (images,)), tmp_path / "backbone.pt2")
    outputs = torch.export.load(tmp_path / "backbone.pt2").module()(images)
    with torch.no_grad():
        for name, expected in model(images).items():
            torch.testing.assert_close(outputs[name], expected, rtol=1e-4, atol=1e-4)
