"""tools/convert_checkpoint.py: what it writes and prints, and what it refuses."""

import importlib.util
from pathlib import Path

import pytest
import torch

from iwin_d2.checkpoint import convert_checkpoint, load_pretrained
from iwin_d2.checkpoint.reading import read_checkpoint
from iwin_d2.checkpoint.weights import recognise
from iwin_d2.engine.cli import run_tool
from iwin_d2.errors import CheckpointError
from iwin_d2.modeling import IwinTransformer, IwinTransformer3D, VideoClassifier

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden"
CONFIG = ROOT / "projects/mask_rcnn/configs/custom_coco_small.py"


@pytest.fixture(scope="module")
def tool():
    path = ROOT / "tools/convert_checkpoint.py"
    spec = importlib.util.spec_from_file_location("tool_convert_checkpoint", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def run(tool, capsys, monkeypatch):
    """Run the tool; returns its exit status, what it prints, and its sentence."""
    monkeypatch.delenv("IWIN_D2_TRACEBACK", raising=False)

    def run(*arguments):
        status = run_tool(lambda: tool([str(argument) for argument in arguments]))
        printed = capsys.readouterr()
        return status, printed.out, printed.err.strip()

    return run


def small_backbone():
    return IwinTransformer(embed_dim=16, depths=(1, 1, 2, 1), num_heads=(2, 4, 8, 16))


def small_video():
    backbone = IwinTransformer3D(embed_dim=16, depths=(1, 1, 2, 1), num_heads=(2, 4, 8, 16))
    return VideoClassifier(backbone, 3)


def test_a_detector(run, tmp_path):
    source, target = GOLDEN / "mask_rcnn.pt", tmp_path / "converted.pth"
    status, printed, _ = run(source, target)
    assert status == 0 and f"Written: {target}" in printed
    *_, total, last = printed.splitlines()
    assert total.split() == ["all", "134", "0", "0"] and last == f"Written: {target}"
    content = torch.load(target, weights_only=True)
    published = torch.load(source, weights_only=True)["state_dict"]
    assert content.keys() == {"model", "iwin_d2"} and len(content["model"]) == len(published)
    name = "roi_heads.mask_head.mask_fcn1.weight"
    assert torch.equal(content["model"][name], published["roi_head.mask_head.convs.0.conv.weight"])
    assert name in torch.load(target, weights_only=True)["model"]
    again = convert_checkpoint(target)  # is in this project's names already
    assert set(again.loaded) == set(content["model"]) and not again.missing


def test_the_backbone_alone(run, tmp_path):
    target = tmp_path / "backbone.pth"
    status, printed, _ = run(GOLDEN / "mask_rcnn.pt", target, "--part", "backbone", "--all")
    assert status == 0 and "neck.fpn_convs.0.conv.bias: unexpected, not of the backbone" in printed
    assert "norm3.bias <- backbone.norm3.bias" in printed
    model = small_backbone()
    assert len(load_pretrained(model, target).loaded) == len(model.state_dict())


@pytest.mark.parametrize("name", ["image classifier", "mask_rcnn"])
def test_inflated_for_video(run, tmp_path, name):
    source, target = GOLDEN / f"{name}.pt", tmp_path / "inflated.pth"
    if name == "image classifier":
        source = tmp_path / "classifier.pth"
        model = torch.load(GOLDEN / "iwin_classifier.pt", weights_only=True)["models"][0]
        torch.save({"model": model["state_dict"]}, source)
    status, printed, _ = run(source, target, "--inflate")
    assert status == 0 and "note: inflated: the weights of the patches are" in printed
    expected = load_pretrained(video := small_video(), source, part="backbone")
    report = load_pretrained(other := small_video(), target)
    # By itself or straight from the file, the same tensors get there.
    assert report.loaded.keys() == expected.loaded.keys()
    assert report.missing.keys() == expected.missing.keys()
    for name in report.loaded:
        assert torch.equal(other.state_dict()[name], video.state_dict()[name])
    assert "norm3.weight" not in torch.load(target, weights_only=True)["model"]


def test_what_is_not_to_be_inflated(run, tmp_path):
    status, _, sentence = run(GOLDEN / "video_recognizer.pt", tmp_path / "x.pth", "--inflate")
    assert status == 1 and "whose patches hold several frames already" in sentence
    arguments = ("--inflate", "--config-file", CONFIG, "model.roi_heads.num_classes=2")
    status, _, sentence = run(GOLDEN / "mask_rcnn.pt", tmp_path / "x.pth", *arguments)
    assert status == 1 and sentence.startswith("inflate=2 makes no sense: give the frames of a ")
    assert not (tmp_path / "x.pth").exists()


def test_nothing_is_written_without_a_destination(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, printed, _ = run(GOLDEN / "cascade_mask_rcnn.pt")
    assert status == 0 and "all                             240        0           0" in printed
    assert "Written" not in printed and not list(tmp_path.iterdir())


def test_for_the_model_of_a_config(run, tmp_path):
    torch.save({"model": small_backbone().state_dict()}, tmp_path / "backbone.pth")
    sizes = [
        "model.backbone.bottom_up.embed_dim=16",
        "model.backbone.bottom_up.num_heads=[2,4,8,16]",
        "model.roi_heads.num_classes=2",
    ]
    target = tmp_path / "converted.pth"
    arguments = [tmp_path / "backbone.pth", target, "--config-file", CONFIG]
    status, printed, _ = run(*arguments, *sizes)
    assert status == 0
    assert {"backbone.bottom_up", "92", "-"} <= set(printed.split())
    written = torch.load(target, weights_only=True)["model"]
    assert len(written) == 92 and all(name.startswith("backbone.bottom_up.") for name in written)
    status, _, sentence = run(*arguments, *sizes[1:])
    assert status == 1
    assert (
        "backbone.pth is an Iwin of embed_dim=16, depths=[1, 1, 2, 1] alone, the model's"
        in sentence
    )


@pytest.mark.parametrize(
    ("golden", "kind"), [("mask_rcnn.pt", "thing_classes"), ("upernet.pt", "stuff_classes")]
)
def test_classes_by_name(tmp_path, golden, kind):
    source = torch.load(GOLDEN / golden, weights_only=True)
    names = ("a", "b", "c", "d", "e")
    torch.save({"state_dict": source["state_dict"], "meta": {"CLASSES": names}}, tmp_path / "a.pth")
    convert_checkpoint(tmp_path / "a.pth", tmp_path / "b.pth")
    content = torch.load(tmp_path / "b.pth", weights_only=True)
    assert content["metadata"] == {kind: list(names)}
    found = recognise(read_checkpoint(str(tmp_path / "b.pth")), "b.pth").classes
    assert found == {kind: list(names)}


def spoiled(**changes):
    """The published Mask R-CNN with tensors added, or taken away (None)."""
    state = dict(torch.load(GOLDEN / "mask_rcnn.pt", weights_only=True)["state_dict"])
    for name, value in changes.items():
        key = name.replace("__", ".")
        state.pop(key, None)
        if value is not None:
            state[key] = value
    return {"state_dict": state}


INCOMPLETE = {
    "a part without a place": (
        spoiled(roi_head__mask_iou_head__fc__weight=torch.zeros(1), neck__x=torch.zeros(1)),
        "of which 2 tensors have no place here (neck.x, roi_head.mask_iou_head.fc.weight)",
    ),
    "a tensor is missing": (
        spoiled(backbone__layers__1__blocks__0__norm1__bias=None),
        "is not quite a Mask R-CNN on an Iwin of embed_dim=16, depths=[1, 1, 2, 1] with 5 classes, "
        "the published model most like it: it lacks 1 of its tensors "
        "(backbone.bottom_up.layers.1.blocks.0.norm1.bias); ",
    ),
    "a tensor too many": (
        spoiled(backbone__pos_embed=torch.zeros(1)),
        "it has 1 that it has not (backbone.bottom_up.pos_embed); ",
    ),
}


@pytest.mark.parametrize("kind", INCOMPLETE)
def test_what_is_not_complete_is_not_converted(run, tmp_path, kind):
    content, essential = INCOMPLETE[kind]
    torch.save(content, tmp_path / "source.pth")
    status, _, sentence = run(tmp_path / "source.pth", tmp_path / "target.pth")
    assert status == 1 and not (tmp_path / "target.pth").exists()
    assert len(sentence.splitlines()) == 1 and sentence.startswith(f"{tmp_path}/source.pth is ")
    assert essential in sentence


def test_heads_that_there_are_not_yet(run, tmp_path):
    weights = small_backbone().state_dict()
    state = {f"backbone.{name}": value for name, value in weights.items()}
    state["decode_head.squeeze.conv.weight"] = torch.zeros(7, 4, 1, 1)  # of another head
    torch.save({"state_dict": state}, tmp_path / "seg.pth")
    status, _, sentence = run(tmp_path / "seg.pth", tmp_path / "target.pth")
    assert status == 1 and "this version has no such segmentation heads" in sentence
    status, *_ = run(tmp_path / "seg.pth", tmp_path / "target.pth", "--part", "backbone")
    assert status == 0
    assert load_pretrained(small_backbone(), tmp_path / "target.pth").missing == {}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{tmp}/none.pth", "{tmp}/x.pth"], "There is no checkpoint {tmp}/none.pth"),
        ([GOLDEN / "mask_rcnn.pt", "{tmp}/no/x.pth"], "{tmp}/no/x.pth has no folder {tmp}/no: "),
        ([GOLDEN / "mask_rcnn.pt", "{tmp}"], "{tmp} is a folder: name a file to write."),
        ([GOLDEN / "mask_rcnn.pt", "a=1"], "a=1: overrides are for a --config-file."),
        ([CONFIG, "{tmp}/x.pth"], "cannot be read as a checkpoint"),
        ([GOLDEN / "iwin_backbone.pt", "{tmp}/x.pth"], ""),
    ],
)
def test_bad_arguments(run, tmp_path, arguments, sentence):
    given = [str(argument).replace("{tmp}", str(tmp_path)) for argument in arguments]
    status, _, said = run(*given)
    assert (status, "") == (1, "") if sentence else status == 0
    assert sentence.replace("{tmp}", str(tmp_path)) in said


def test_a_full_disk(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"x\.pth could not be written .*No space left"):
        convert_checkpoint(GOLDEN / "mask_rcnn.pt", tmp_path / "x.pth")
    assert not list(tmp_path.iterdir())
