"""Segmenters' files: into segmenters, their backbones into and out of detectors, misfits."""

import pytest
import torch
from published_files import (
    CASCADE_T,
    MASK_RCNN_T,
    SMALL,
    TINY,
    UPERNET_T,
    build,
    classifier_file,
    copied,
    detector,
    detector_file,
    manifest,
    same_state,
    segmenter,
    state_dict,
)
from torch import nn

from iwin_d2.checkpoint import Checkpointer, convert_checkpoint, load_pretrained
from iwin_d2.d2.layers import ShapeSpec
from iwin_d2.d2.modeling import Backbone, SemanticSegmentor
from iwin_d2.errors import CheckpointError
from iwin_d2.modeling import UPerNetHead, iwin_tiny

UPERNET_S = UPERNET_T.replace("tiny", "small")
PUBLISHED_T = "iwin_tiny_patch4_window7_512_ade20k_1k"


@pytest.fixture(scope="module")
def upernet():
    return segmenter(memory=True)


@pytest.fixture(scope="module")
def state(upernet):
    return copied(upernet)


def of_classes(number):
    """The shapes of a UPerNet's classifiers for other classes."""
    return {
        "decode_head__conv_seg__weight": [number, 512, 1, 1],
        "decode_head__conv_seg__bias": [number],
        "auxiliary_head__conv_seg__weight": [number, 256, 1, 1],
        "auxiliary_head__conv_seg__bias": [number],
    }


def test_a_published_segmenter(tmp_path):
    path = detector_file(tmp_path / f"{PUBLISHED_T}.pth", UPERNET_T)
    model = segmenter(memory=True)
    report = load_pretrained(model, path)
    assert f"the published {PUBLISHED_T}, under MMSegmentation's names" in str(report)
    assert sorted(report.loaded.values()) == sorted(manifest(UPERNET_T)["state_dict"])
    assert not report.missing and not report.unexpected and not report.notes
    given, found = state_dict(UPERNET_T), model.state_dict()
    for ours, theirs in report.loaded.items():
        assert torch.equal(found[ours], given[theirs]), ours
    name = "sem_seg_head.pyramid_pooling.convs.2.norm.running_var"
    assert report.loaded[name] == "decode_head.psp_modules.2.1.bn.running_var"


def test_a_converted_one(tmp_path, upernet):
    path = detector_file(tmp_path / "any.pth", UPERNET_T)
    names = convert_checkpoint(path, tmp_path / "converted.pth").loaded
    converted = torch.load(tmp_path / "converted.pth", weights_only=True)
    given = state_dict(UPERNET_T)
    assert converted["iwin_d2"]["num_heads"] == [3, 6, 12, 24]
    assert converted["model"].keys() == names.keys() == upernet.state_dict().keys()
    assert all(torch.equal(converted["model"][ours], given[names[ours]]) for ours in names)
    # In this project's names, it is loaded whole, too.
    report = load_pretrained(segmenter(), tmp_path / "converted.pth")
    assert report.loaded.keys() == names.keys() and not report.missing


def test_a_classifier_starts_the_backbone_of_a_segmenter(tmp_path):
    path = classifier_file(tmp_path / f"{TINY}.pth")
    for head in ("upernet", "semantic_fpn"):
        model = segmenter(head=head, memory=True)
        before = copied(model)
        report = load_pretrained(model, path)
        assert len(report.loaded) == 180
        reasons = list(report.missing.values())
        assert set(reasons) == {"none in a classifier", "not of the backbone"}
        assert reasons.count("none in a classifier") == 8
        for name, value in model.state_dict().items():
            assert name in report.loaded or torch.equal(value, before[name])
    with pytest.raises(CheckpointError, match="do not fill the model: it is an image classifier"):
        Checkpointer(model).load(path, fill=True)


def test_the_backbone_of_a_detector_and_the_other_way_round(tmp_path):
    """From under a pyramid, and to there."""
    mask_rcnn = detector_file(tmp_path / "detector.pth", MASK_RCNN_T)
    upernet = detector_file(tmp_path / "segmenter.pth", UPERNET_T)
    for model, path, name in (
        (segmenter(memory=True), mask_rcnn, "backbone."),
        (segmenter(head="semantic_fpn", memory=True), upernet, "backbone.bottom_up."),
        (detector("mask_rcnn", memory=True), upernet, "backbone.bottom_up."),
    ):
        before = copied(model)
        report = load_pretrained(model, path, part="backbone")
        assert len(report.loaded) == 188
        assert set(report.missing.values()) == {"not of the backbone"}
        given = torch.load(path, weights_only=True)["state_dict"]
        for ours, value in model.state_dict().items():
            if ours in report.loaded:
                theirs = report.loaded[ours]
                assert ours.removeprefix(name) == theirs.removeprefix("backbone.")
                assert torch.equal(value, given[theirs])
            else:
                assert torch.equal(value, before[ours])
    assert len(load_pretrained(build(iwin_tiny), upernet).loaded) == 188


def test_other_classes_are_an_explicit_choice(tmp_path, upernet):
    path = detector_file(tmp_path / "any.pth", UPERNET_T)
    model = segmenter(num_classes=11, memory=True)
    before = copied(model)
    with pytest.raises(CheckpointError, match="with 150 classes, the model has 11 classes: set"):
        load_pretrained(model, path)
    assert same_state(before, model.state_dict())
    report = load_pretrained(model, path, classes="new")
    anew = {name for name, reason in report.missing.items() if reason == "other classes"}
    heads = ("sem_seg_head.predictor", "sem_seg_head.auxiliary.predictor")
    assert anew == {f"{head}.{kind}" for head in heads for kind in ("weight", "bias")}
    assert all(torch.equal(before[name], model.state_dict()[name]) for name in anew)
    assert len(report.loaded) == 266


def test_classes_by_their_numbers_in_the_file(tmp_path):
    content = state_dict(UPERNET_T)
    content["decode_head.conv_seg.bias"] = torch.arange(150.0)
    content["auxiliary_head.conv_seg.weight"] = (
        torch.arange(150.0).view(-1, 1, 1, 1).expand(150, 256, 1, 1)
    )
    torch.save({"state_dict": content}, tmp_path / "any.pth")
    model = segmenter(num_classes=3, memory=True)
    before = copied(model)
    load_pretrained(model, tmp_path / "any.pth", classes=[17, -1, 2])
    found = model.state_dict()
    name = "sem_seg_head.predictor.bias"
    assert found[name].tolist() == [17, before[name][1], 2]
    assert found["sem_seg_head.auxiliary.predictor.weight"][2].unique().tolist() == [2]


def test_without_the_auxiliary_head(tmp_path):
    path = detector_file(tmp_path / "any.pth", UPERNET_T)
    model = segmenter(memory=True)
    model.sem_seg_head.auxiliary = None
    with pytest.raises(CheckpointError, match=r"has 7 that the model has not \(sem_seg_head\.aux"):
        load_pretrained(model, path)
    report = load_pretrained(model, path, leave_out=["sem_seg_head.auxiliary"])
    assert len(report.loaded) == 262 and list(report.unexpected.values()) == ["left out"] * 8


# What is written, and what must be said of it when a UPerNet T is to be loaded.
FILES = {
    "a detector": (
        lambda path: detector_file(path, CASCADE_T),
        "{path} is a Cascade Mask R-CNN on Iwin-T with 80 classes, the model a UPerNet on Iwin-T "
        f"with 150 classes: give weights of such a model, such as {PUBLISHED_T}, or take its "
        "backbone alone with part=backbone (train.init_options.part).",
    ),
    "another size": (
        lambda path: detector_file(path, UPERNET_S),
        "{path} is a UPerNet on Iwin-S with 150 classes, the model's backbone is Iwin-T: give "
        f"weights of that size, such as {PUBLISHED_T}, or build the model with embed_dim=96 and "
        "depths=[2, 2, 18, 2].",
    ),
    "a classifier of another size": (
        lambda path: classifier_file(path, SMALL),
        "{path} is an image classifier on Iwin-S with 1000 classes, the model's backbone is Iwin-T",
    ),
    "other classes": (
        lambda path: detector_file(path, UPERNET_T, **of_classes(19)),
        "{path} is a UPerNet on Iwin-T with 19 classes, the model has 150 classes: set its number "
        "of classes to 19, or have new heads with classes=new",
    ),
    "a tensor is missing": (
        lambda path: detector_file(path, UPERNET_T, decode_head__conv_seg__bias=None),
        "it lacks 1 of the model's 270 tensors (sem_seg_head.predictor.bias); give weights of a "
        f"UPerNet on Iwin-T with 150 classes, such as {PUBLISHED_T}, or name",
    ),
    "a tensor is too many": (
        lambda path: detector_file(path, UPERNET_T, decode_head__extra__weight=[1]),
        "it has 1 that the model has not (decode_head.extra.weight: this version has no such "
        "segmentation heads)",
    ),
    "other widths": (
        lambda path: detector_file(path, UPERNET_T, decode_head__bottleneck__bn__bias=[256]),
        "it has 1 of other shapes (sem_seg_head.pyramid_pooling.bottleneck.norm.bias [256] instead "
        "of [512])",
    ),
    "another head": (
        lambda path: torch.save(
            {
                "state_dict": {
                    **{k: v for k, v in state_dict(UPERNET_T).items() if "head." not in k},
                    "decode_head.linear_pred.weight": torch.zeros(150, 8, 1, 1),
                }
            },
            path,
        ),
        "{path} is a semantic segmenter on Iwin-T, the model a UPerNet on Iwin-T with 150 classes",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_does_not_fit(tmp_path, upernet, state, kind):
    make, essential = FILES[kind]
    path = tmp_path / "file.pth"
    make(path)
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(upernet, path)
    sentence = str(caught.value)
    assert essential.format(path=path) in sentence
    assert len(sentence.splitlines()) == 1 and len(sentence) < 600 and sentence.endswith(".")
    assert same_state(state, upernet.state_dict())


def test_a_segmenter_of_another_head(tmp_path):
    path = detector_file(tmp_path / "any.pth", UPERNET_T)
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(segmenter(head="semantic_fpn"), path)
    assert str(caught.value) == (
        f"{path} is a UPerNet on Iwin-T with 150 classes, the model a Semantic FPN on Iwin-T with "
        "150 classes: give weights of such a model, or take its backbone alone with part=backbone "
        "(train.init_options.part)."
    )


def test_wrong_heads_are_refused(tmp_path):
    path = detector_file(tmp_path / "any.pth", UPERNET_S)
    model = segmenter("Iwin-S")
    for stage, heads in zip(model.backbone.layers, (3, 4, 8, 16)):
        for block in stage.blocks:
            block.attn.num_heads = heads
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(model, path)
    known = "[3, 6, 12, 24] attention heads (as every published UPerNet on Iwin-S"
    assert f"was trained with {known}" in str(caught.value)
    load_pretrained(segmenter("Iwin-S"), path)


class Strides(Backbone):
    """A backbone that is none of this project's."""

    def __init__(self):
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 6, 2, 2)

    def forward(self, x):
        stem = self.stem(x)
        return {"c2": stem, "c3": self.deep(stem)}

    def output_shape(self):
        return {"c2": ShapeSpec(channels=4, stride=4), "c3": ShapeSpec(channels=6, stride=8)}


def test_a_segmenter_on_another_backbone(tmp_path):
    def make():
        backbone = Strides()
        head = UPerNetHead(input_shape=backbone.output_shape(), num_classes=2, channels=4)
        return SemanticSegmentor(
            backbone=backbone, sem_seg_head=head, pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3
        )

    one, other = make(), make()
    Checkpointer(one, str(tmp_path)).save("mine")
    report = load_pretrained(other, tmp_path / "mine.pth")
    assert same_state(one.state_dict(), other.state_dict())
    assert "a UPerNet without an Iwin backbone" in str(report)
