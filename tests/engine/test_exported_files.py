"""Detectors as files of torch.export and ONNX: by the tool, and run as docs/export.md says."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iwin_d2.d2.config import instantiate
from iwin_d2.data.shapes import generate_shapes_dataset
from iwin_d2.engine import export
from iwin_d2.engine.detection import load_config
from iwin_d2.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "export.md"
needs_onnx = pytest.mark.skipif(
    any(not importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="ONNX export needs onnx, onnxscript and onnxruntime: the extra iwin_d2[onnx]",
)
# Of PyTorch's exporter, about itself.
pytestmark = pytest.mark.filterwarnings("ignore")
# Sizes that are not the traced one; odd, and with padding in every stage.
SIZES = [(97, 131), (65, 200), (160, 96)]


def tool():
    spec = importlib.util.spec_from_file_location("export_tool", ROOT / "tools" / "export.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def snippets():
    """The code blocks about detectors: of a .pt2 and of an .onnx."""
    text = DOCUMENT.read_text().partition("## Detectors")[2].partition("## A backbone of your")[0]
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes") / "data"
    return generate_shapes_dataset(folder, num_train=2, num_val=1, image_size=(48, 64))


@pytest.fixture(scope="module")
def make(shapes, tmp_path_factory):
    """A function of a project and a config: arguments for a tool, the model they stand for."""

    def made(project="mask_rcnn", config="quickstart"):
        path = str(ROOT / f"projects/{project}/configs/{config}.py")
        one = "model.roi_heads.box_predictor" + ("s.2" if "cascade" in project else "")
        overrides = [
            f"dataset.train_json={shapes.train_json}",
            f"dataset.test_json={shapes.val_json}",
            "model.backbone.bottom_up.embed_dim=8",
            "model.backbone.bottom_up.depths=[1,1,1,1]",
            "model.backbone.bottom_up.window_size=3",
            f"{one}.test_score_thresh=0.2",
            f"{one}.test_topk_per_image=30",
        ]
        torch.manual_seed(0)
        model = instantiate(load_config(path, overrides).model).eval()
        # Freshly initialised, scores all but tie, and attention is all but uniform.
        factors = {"cls_score": 30, "objectness_logits": 30, "qkv": 10}
        for name, module in model.named_modules():
            if name.rpartition(".")[2] in factors:
                module.weight.data *= factors[name.rpartition(".")[2]]
        weights = tmp_path_factory.mktemp("weights") / "weights.pth"
        torch.save({"model": model.state_dict()}, weights)
        return ["--config-file", path, "--weights", str(weights), *overrides], model

    return made


def image(height, width):
    generator = torch.Generator().manual_seed(height)
    coarse = torch.rand(1, 3, 7, 9, generator=generator) * 255
    return F.interpolate(coarse, (height, width), mode="bilinear")[0]


@torch.no_grad()
def check_maps(model, run, sizes):
    """run(images) against the detector's own maps."""
    for batch, size in zip((1, 3, 2, 1, 2, 1), sizes):
        images = (
            torch.stack([image(*size)] * batch) * torch.linspace(1, 0.5, batch)[:, None, None, None]
        )
        own = model.preprocess_image([{"image": one} for one in images])
        expected = model.backbone(own.tensor)
        found = run(images)
        assert list(found) == list(expected)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def check_detections(model, run):
    """run(image) against the detector's own, before postprocessing."""
    for size in SIZES:
        (expected,) = model.inference([{"image": image(*size)}], do_postprocess=False)
        found = run(image(*size))
        assert len(expected) > 3
        assert len(found["scores"]) == len(expected)
        # Scores may tie: each of the detector's own is to be among those found.
        apart = (found["boxes"][:, None] - expected.pred_boxes.tensor).abs().amax(2)
        apart[found["classes"][:, None] != expected.pred_classes] = torch.inf
        nearest, index = apart.min(0)
        assert nearest.max() < 0.01 and len(set(index.tolist())) == len(expected)
        torch.testing.assert_close(found["scores"][index], expected.scores, rtol=0, atol=1e-4)
        assert (found["scores"].diff() <= 0).all()
        assert ("masks" in found) is expected.has("pred_masks")
        if "masks" in found:
            masks = expected.pred_masks[:, 0]
            torch.testing.assert_close(found["masks"][index], masks, rtol=0, atol=1e-3)


def onnx_session(path):
    """A function of one tensor that runs an ONNX file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    (argument,) = session.get_inputs()

    def run(tensor):
        values = session.run(None, {argument.name: tensor.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, values)}

    return run


def namespaces(program):
    """Whose operators a program calls."""
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    return {node.target.namespace for node in nodes if hasattr(node.target, "namespace")}


# ---- a backbone with its pyramid ----------------------------------------------------------------


@pytest.fixture(scope="module")
def backbone(make, tmp_path_factory):
    """A model, what torch.export has made of its backbone, and the ONNX file, by the tool."""
    arguments, model = make()
    path = tmp_path_factory.mktemp("exported") / "new" / "backbone.onnx"
    programs = []

    def keep(*args):
        programs.append(export_program(*args))
        return programs[0]

    export_program = export.export_program
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "export_program", keep)
        tool().main(["--output", str(path), *arguments])
    return model, programs[0], path


@needs_onnx
def test_of_torch_export(backbone):
    model, program, _ = backbone
    check_maps(model, program.module(), SIZES)
    assert namespaces(program) == {"aten"}


@needs_onnx
def test_of_onnx_at_any_size(backbone):
    import onnx

    model, _, path = backbone
    check_maps(model, onnx_session(path), [*SIZES, (33, 40), (5, 70), (1, 1)])
    nodes = onnx.load(path).graph.node
    assert {node.domain for node in nodes} <= {"", "ai.onnx"}
    assert [p.name for p in path.parent.iterdir()] == ["backbone.onnx"]


@needs_onnx
def test_the_onnx_file_runs_as_documented(backbone, monkeypatch):
    monkeypatch.chdir(backbone[2].parent)
    names = {}
    exec(snippets()[1], names)
    assert names["p2"].shape == (1, 64, 120, 160) and names["p6"].shape == (1, 64, 8, 10)
    info = names["info"]
    assert (info["part"], info["input_format"], len(info["classes"])) == ("backbone", "RGB", 4)


# ---- whole detectors ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_tool_writes_a_detector_that_runs_as_documented(make, tmp_path, monkeypatch):
    arguments, model = make()
    tool().main(["--output", str(tmp_path / "detector.pt2"), "--part", "detector", *arguments])
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(snippets()[0], names)
    check_detections(model, names["detect"])
    info = names["info"]
    assert (info["part"], info["input_format"], len(info["classes"])) == ("detector", "RGB", 4)
    assert len(names["names"]) == len(names["found"]["boxes"]) > 0
    assert not names["found"]["boxes"].requires_grad
    assert namespaces(names["detect"]) == {"aten", "torchvision"}  # none of this package
    assert [p.name for p in tmp_path.iterdir()] == ["detector.pt2"]


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["pt2", pytest.param("onnx", marks=needs_onnx)])
@pytest.mark.parametrize(
    ("project", "config"),
    [
        ("mask_rcnn", "quickstart"),
        ("mask_rcnn", "custom_coco_small_boxes"),
        ("cascade_mask_rcnn", "quickstart"),
        ("cascade_mask_rcnn", "custom_coco_small_boxes"),
    ],
)
def test_every_kind_of_detector(project, config, ending, make, tmp_path):
    _, model = make(project, config)
    path = tmp_path / f"detector.{ending}"
    export.export_detector(model, path, "detector")
    run = onnx_session(path) if ending == "onnx" else torch.export.load(path).module()
    check_detections(model, run)


# ---- what cannot be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "part", "sentence"),
    [
        (
            "model.pth",
            "backbone",
            "neither .pt2 nor .onnx: give the file that ending",
        ),
        ("model.pt2", "neck", "part='neck': give backbone, detector or segmenter"),
    ],
)
def test_what_cannot_be_written_is_said_first(path, part, sentence):
    with pytest.raises(ConfigError, match=sentence):
        export.export_detector(nn.Linear(1, 1), path, part)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"need onnx and onnxscript: pip install 'iwin"):
        export.check_export("model.onnx", "backbone")
    export.check_export("model.pt2", "backbone")


def test_the_tool_checks_before_it_loads(tmp_path):
    with pytest.raises(ConfigError, match="neither"):
        tool().main(["--config-file", "no.py", "--output", str(tmp_path / "a.txt")])
    with pytest.raises(SystemExit):
        tool().main(["--config-file", "no.py", "--output", "a.onnx", "--part", "neck"])


class Branching(nn.Module):
    """A backbone that asks what it sees."""

    size_divisibility = 0

    def forward(self, images):
        return {"res2": images * 2 if images.mean() > 0 else images}

    def output_shape(self):
        return {"res2": None}


class WithBackbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Branching()
        self.register_buffer("pixel_mean", torch.zeros(3, 1, 1))
        self.register_buffer("pixel_std", torch.ones(3, 1, 1))


def test_a_model_that_pytorch_cannot_export_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"^PyTorch .* cannot export this model \("):
        export.export_detector(WithBackbone(), tmp_path / "a.pt2")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_a_sentence(monkeypatch, tmp_path):
    model = WithBackbone()
    monkeypatch.setattr(export, "export_program", lambda *args: None)
    with pytest.raises(DataError, match=r"a\.pt2 cannot be written \(No such file or directory\)"):
        export.export_detector(model, tmp_path / "nowhere" / "a.pt2")
