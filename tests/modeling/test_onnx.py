"""The backbone as an ONNX file: the snippets of docs/export.md, run at sizes of every kind.

Every day, tests/engine/test_exported_files.py does it for a backbone with its pyramid.
"""

import re
from pathlib import Path

import pytest
import torch

import iwin_d2.modeling
from iwin_d2.modeling import IwinTransformer

for _module in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(_module, reason=f"ONNX export needs {_module}: the extra iwin_d2[onnx]")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # of PyTorch, about itself
]

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "export.md"


@pytest.fixture(scope="module")
def snippets():
    """The two code blocks about a bare backbone: the export, and what runs the file."""
    text = DOCUMENT.read_text().partition("## A backbone of your own code")[2]
    export, run = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return export, run


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = IwinTransformer(embed_dim=8, depths=[1] * 4, num_heads=[1, 2, 2, 4], window_size=3)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data *= 10  # freshly initialised, attention is all but uniform
            torch.nn.init.normal_(layer.bias)
    return model.eval()


@pytest.fixture(scope="module")
def folder(snippets, model, tmp_path_factory):
    """Where the export has left its file."""
    folder = tmp_path_factory.mktemp("onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(iwin_d2.modeling, "iwin_tiny", lambda: model)
        exec(snippets[0], {})
    return folder


@pytest.fixture(scope="module")
def session(folder):
    import onnxruntime

    return onnxruntime.InferenceSession(
        folder / "backbone.onnx", providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (2, (96, 128)),  # as traced
        (2, (192, 96)),  # whole windows in every stage
        (3, (97, 131)),  # odd, and padding in every stage
        (1, (35, 64)),  # one image; the last stage is smaller than a window
        (2, (5, 40)),  # and the second stage too
        (1, (1, 1)),
    ],
)
def test_onnxruntime_gives_the_same(session, model, batch, size):
    images = torch.randn(batch, 3, *size)
    with torch.no_grad():
        expected = model(images)
    names = [output.name for output in session.get_outputs()]
    assert names == list(expected)
    for output, truth in zip(session.run(None, {"images": images.numpy()}), expected.values()):
        torch.testing.assert_close(torch.from_numpy(output), truth, rtol=1e-4, atol=1e-4)


def test_height_and_width_are_dynamic(session):
    (images,) = session.get_inputs()
    assert images.shape == ["batch", 3, "height", "width"]


def test_the_file_needs_no_operator_of_ours(folder):
    import onnx

    nodes = onnx.load(folder / "backbone.onnx").graph.node
    assert {node.domain for node in nodes} <= {"", "ai.onnx"}


def test_running_it_as_documented(snippets, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {}
    exec(snippets[1], names)
    assert names["res2"].shape == (1, 8, 121, 160)
    assert names["res5"].shape == (1, 64, 16, 20)
