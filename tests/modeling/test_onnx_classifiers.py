"""Classifiers of images and clips as ONNX files."""

import pytest
import torch
from torch import nn

from iwin_d2.modeling import IwinClassifier, IwinTransformer3D, VideoClassifier

for _module in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(_module, reason=f"ONNX export needs {_module}: the extra iwin_d2[onnx]")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # of PyTorch, about itself
]

SETTINGS = {"embed_dim": 16, "depths": [1] * 4, "num_heads": [1, 2, 2, 4], "window_size": 2}


def lively(model):
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data *= 10  # freshly initialised, attention is all but uniform
            nn.init.normal_(layer.bias)
    return model.eval()


def assert_same_in_onnxruntime(model, first, dynamic, others, folder):
    import onnxruntime

    program = torch.onnx.export(
        model, (first,), dynamo=True, dynamic_shapes=(dynamic,), input_names=["x"]
    )
    program.save(folder / "model.onnx")
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    for x in (first, *others):
        with torch.no_grad():
            expected = model(x)
        (found,) = session.run(None, {"x": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)


def test_images_of_any_size_on_which_no_window_shrinks(tmp_path):
    torch.manual_seed(0)
    model = lively(IwinClassifier(num_classes=5, img_size=64, **SETTINGS))
    sides = {2: torch.export.Dim("height", min=33), 3: torch.export.Dim("width", min=33)}
    dynamic = {0: torch.export.Dim("batch", min=2), **sides}
    others = [torch.randn(3, 3, 65, 131), torch.randn(2, 3, 33, 40)]
    assert_same_in_onnxruntime(model, torch.randn(2, 3, 96, 128), dynamic, others, tmp_path)


def test_clips_of_one_size_on_which_windows_shrink(tmp_path):
    torch.manual_seed(0)
    backbone = IwinTransformer3D(**{**SETTINGS, "window_size": 7})
    nn.init.normal_(backbone.time_embed)
    model = lively(VideoClassifier(backbone, 5))
    dynamic = {0: torch.export.Dim("batch", min=2)}
    others = [torch.randn(3, 3, 7, 64, 40)]
    assert_same_in_onnxruntime(model, torch.randn(2, 3, 7, 64, 40), dynamic, others, tmp_path)
