"""Segmenters as graphs: torch.compile, torch.export and ONNX, at sizes that were not traced."""

import importlib.util

import pytest
import torch
from segmenters import shrunken_semantic_fpn, shrunken_upernet
from torch import nn
from torch.export import Dim

from iwin_d2.d2.config import instantiate
from iwin_d2.d2.layers import ShapeSpec
from iwin_d2.engine import export
from iwin_d2.errors import ConfigError
from iwin_d2.modeling import UPerNetHead
from iwin_d2.modeling.export import ImagesToScores
from iwin_d2.modeling.semantic_segmentation.upernet import PyramidPooling

# Of PyTorch's exporter, about itself.
pytestmark = pytest.mark.filterwarnings("ignore")
CONFIGS = {"upernet": shrunken_upernet, "semantic_fpn": shrunken_semantic_fpn}
SIZES = [(97, 131), (65, 200), (160, 96)]
needs_onnx = pytest.mark.skipif(
    any(not importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="ONNX export needs onnx, onnxscript and onnxruntime: the extra iwin_d2[onnx]",
)


def make(name):
    config = CONFIGS[name]()
    backbone = config.backbone.get("bottom_up", config.backbone)
    backbone.update(embed_dim=8, depths=[1] * 4, num_heads=[1, 2, 2, 4], window_size=3)
    torch.manual_seed(0)
    return instantiate(config).eval()


@torch.no_grad()
def check(model, run, sizes, batches):
    """run(images) against the segmenter's own scores."""
    for batch, size in zip(batches, sizes):
        images = torch.rand(batch, 3, *size) * 255
        expected = torch.stack([x["sem_seg"] for x in model([{"image": i} for i in images])])
        found = run(images)
        assert list(found) == ["sem_seg"] and found["sem_seg"].shape == expected.shape
        apart = (found["sem_seg"] - expected).abs().max() / expected.abs().max()
        assert apart < 1e-4


@pytest.mark.parametrize("name", CONFIGS)
def test_a_segmenter_as_a_function_of_tensors(name):
    model = make(name)
    before = [key for key, _ in model.named_modules()]
    check(model, ImagesToScores(model.train()), [], [])
    model.eval()
    check(model, ImagesToScores(model), [*SIZES, (33, 40), (1, 1)], (1, 2, 1, 1, 2))
    assert [key for key, _ in model.named_modules()] == before


def test_other_models_are_named():
    with pytest.raises(ConfigError, match="the model is a Linear: export its backbone alone"):
        ImagesToScores(nn.Linear(1, 1))


def test_pyramid_pooling_at_any_size():
    """Pooled by a matrix, which ONNX has, too."""

    class OnMaps(nn.Module):  # channels last, as the backbone leaves them
        def __init__(self):
            super().__init__()
            self.pooling = PyramidPooling(8, 6, (2, 6), "BN").eval()

        def forward(self, x):
            return self.pooling(x.permute(0, 3, 1, 2))

    model, shapes = OnMaps(), {i: Dim(name, min=2) for i, name in enumerate("bhw")}
    program = torch.export.export(model, (torch.randn(2, 5, 7, 8),), dynamic_shapes=(shapes,))
    assert "adaptive" not in str(program.graph)
    for size in ((2, 5, 7, 8), (3, 11, 4, 8), (2, 2, 3, 8)):
        x = torch.randn(*size)
        with torch.no_grad():
            torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [pytest.param(False, marks=pytest.mark.slow), True])
def test_torch_compile_takes_the_head_whole(training):
    shapes = {f"c{i}": ShapeSpec(channels=4 * i, stride=2**i) for i in (2, 3)}
    torch.manual_seed(0)
    options = {"num_classes": 3, "channels": 6, "pool_scales": [1, 3], "dropout": 0.0}
    head = UPerNetHead(input_shape=shapes, **options).train(training)
    compiled = torch.compile(head, fullgraph=True, backend="eager", dynamic=True)
    for size in ((32, 48), (48, 80)):
        features = {
            name: torch.randn(2, s.channels, *(side // s.stride for side in size))
            for name, s in shapes.items()
        }
        targets = torch.randint(0, 3, (2, *size)) if training else None
        torch.testing.assert_close(compiled(features, targets), head(features, targets))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_torch_export(name, tmp_path):
    model = make(name)
    export.export_detector(model, tmp_path / "segmenter.pt2", "segmenter", ["a", "b"])
    program = torch.export.load(tmp_path / "segmenter.pt2")
    check(model, program.module(), SIZES, (2, 3, 2))
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    assert {node.target.namespace for node in nodes if hasattr(node.target, "namespace")} == {
        "aten"
    }


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_onnx(name, tmp_path):
    import onnxruntime

    model, path = make(name), tmp_path / "segmenter.onnx"
    export.export_detector(model, path, "segmenter")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images):
        (scores,) = session.run(["sem_seg"], {"images": images.numpy()})
        return {"sem_seg": torch.from_numpy(scores)}

    check(model, run, [*SIZES, (33, 40)], (1, 3, 2, 1))
