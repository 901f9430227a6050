"""Files of every family go into the models that they are for, tensor by tensor."""

import logging

import pytest
import torch
from published_files import (
    CASCADE_T,
    MASK_RCNN_T,
    ROOT,
    TINY,
    UPERNET_T,
    build,
    classifier_file,
    copied,
    detector,
    detector_file,
    same_state,
    small_detector,
    state_dict,
)
from torch import nn

from iwin_d2.checkpoint import Checkpointer, LoadOptions, convert_checkpoint, load_pretrained
from iwin_d2.d2.checkpoint import DetectionCheckpointer
from iwin_d2.d2.config import LazyConfig, instantiate
from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.errors import CheckpointError, ConfigError
from iwin_d2.modeling import IwinTransformer, iwin_tiny


class Classifier(nn.Module):
    """A network around the backbone, in the names of somebody's own."""

    def __init__(self, **backbone):
        super().__init__()
        self.body = iwin_tiny(**backbone)
        self.fc = nn.Linear(768, 10)


@pytest.fixture
def tiny():
    return build(iwin_tiny)


def of_backbone(name, prefix=""):
    """A published model's weights by the names of its backbone."""
    found = state_dict(name)
    kept = ("patch_embed", "layers", "norm0", "norm1", "norm2", "norm3")
    cut = {
        key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)
    }
    return {key: value for key, value in cut.items() if key.split(".")[0] in kept}


def assert_has(model, weights):
    state = model.state_dict()
    for name, value in weights.items():
        torch.testing.assert_close(state[name], value.expand_as(state[name]), rtol=0, atol=0)


# ---- whole models -------------------------------------------------------------------------------


def test_a_classifier_starts_a_backbone(tmp_path, tiny):
    before = copied(tiny)
    report = load_pretrained(tiny, classifier_file(tmp_path / "any.pth"))
    assert_has(tiny, of_backbone(TINY))
    norms = {f"norm{i}.{part}" for i in range(4) for part in ("weight", "bias")}
    assert report.missing == dict.fromkeys(norms, "none in a classifier")
    assert set(report.unexpected) == {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    for name in norms:
        assert torch.equal(tiny.state_dict()[name], before[name])


def test_a_classifier_starts_the_backbone_inside_a_model(tmp_path):
    model = build(Classifier)
    fc = model.fc.weight.detach().clone()
    report = load_pretrained(model, classifier_file(tmp_path / "any.pth"))
    assert_has(model.body, of_backbone(TINY))
    assert torch.equal(model.fc.weight, fc)
    assert report.loaded["body.layers.0.blocks.0.attn.qkv.weight"] == (
        "layers.0.blocks.0.attn.qkv.weight"
    )
    assert report.missing["fc.weight"] == "not of the backbone"


@pytest.mark.parametrize("name", [CASCADE_T, MASK_RCNN_T, UPERNET_T])
def test_a_backbone_alone_takes_that_of_any_file(tmp_path, tiny, name):
    report = load_pretrained(tiny, detector_file(tmp_path / "any.pth", name))
    assert_has(tiny, of_backbone(name, "backbone."))
    assert len(report.loaded) == len(tiny.state_dict()) == 188 and not report.missing
    assert len(report.unexpected) == len(state_dict(name)) - 188


def test_a_published_detector(tmp_path):
    """What test_published_files.py says of names, with numbers, in a model of memory."""
    model = detector("mask_rcnn", memory=True)
    report = load_pretrained(model, detector_file(tmp_path / "any.pth", MASK_RCNN_T))
    published = state_dict(MASK_RCNN_T)
    assert sorted(report.loaded.values()) == sorted(published)
    assert_has(model, {ours: published[theirs] for ours, theirs in report.loaded.items()})
    assert len(model.state_dict()) == len(published)
    assert report.loaded["backbone.fpn_lateral2.weight"] == "neck.lateral_convs.0.conv.weight"
    assert report.loaded["roi_heads.box_head.fc1.weight"] == (
        "roi_head.bbox_head.shared_fcs.0.weight"
    )


WRAPPED = {
    "bare": lambda state: state,
    "under model": lambda state: {"model": state, "epoch": 3},
    "under state_dict": lambda state: {"state_dict": state, "meta": {"epoch": 3}},
    "of DataParallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "of torch.compile": lambda state: {
        "model": {f"module._orig_mod.{name}": value for name, value in state.items()}
    },
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_wherever_the_weights_lie_in_the_file(tmp_path, tiny, kind):
    torch.save(WRAPPED[kind](state_dict(TINY)), tmp_path / "any.pth")
    load_pretrained(tiny, tmp_path / "any.pth")
    assert_has(tiny, of_backbone(TINY))


def test_into_wrapped_models(tmp_path, tiny):
    wrapped = torch.compile(nn.DataParallel(tiny))
    load_pretrained(wrapped, classifier_file(tmp_path / "any.pth"))
    assert_has(tiny, of_backbone(TINY))


def test_half_precision_becomes_the_models(tmp_path, tiny):
    half = {name: value.half() for name, value in state_dict(TINY).items()}
    torch.save(half, tmp_path / "half.pth")
    load_pretrained(tiny, tmp_path / "half.pth")
    assert tiny.patch_embed.proj.weight.dtype == torch.float32
    assert_has(tiny, {n: v.float() for n, v in half.items() if n.startswith("layers.2")})


def test_what_this_project_saved(tmp_path):
    saved, loaded = small_detector(), small_detector()
    Checkpointer(saved, str(tmp_path)).save("model_0")
    report = load_pretrained(loaded, tmp_path / "model_0.pth")
    assert same_state(saved.state_dict(), loaded.state_dict())
    assert not report.missing and not report.unexpected


def test_a_backbone_by_itself_starts_a_detector(tmp_path):
    model = small_detector("mask_rcnn")
    backbone = build(
        lambda: IwinTransformer(embed_dim=32, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8))
    )
    torch.save(backbone.state_dict(), tmp_path / "backbone.pth")
    load_pretrained(model, tmp_path / "backbone.pth")
    assert same_state(model.backbone.bottom_up.state_dict(), backbone.state_dict())


def test_stages_that_are_not_built_are_not_needed(tmp_path):
    model = build(lambda: iwin_tiny(out_features=("res3", "res4")))
    report = load_pretrained(model, detector_file(tmp_path / "any.pth"))
    assert_has(
        model,
        {
            k: v
            for k, v in of_backbone(CASCADE_T, "backbone.").items()
            if k in ("layers.2.blocks.5.mlp.fc2.weight", "norm1.weight", "norm2.weight")
        },
    )
    assert len(report.loaded) == len(model.state_dict())
    not_built = {name for name, why in report.unexpected.items() if why == "not built"}
    stages = {name.split(".")[2] for name in not_built if ".layers." in name}
    assert stages == {"2", "3"}  # of stage 2 the downsampling
    assert {"backbone.norm0.weight", "backbone.norm3.bias"} <= not_built


def test_a_model_without_iwin_is_loaded_whole_or_not_at_all(tmp_path):
    saved, loaded = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.save(saved.state_dict(), tmp_path / "linear.pth")
    load_pretrained(loaded, tmp_path / "linear.pth")
    assert same_state(saved.state_dict(), loaded.state_dict())
    torch.save({"weight": torch.zeros(2, 2)}, tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match=r"lacks 1 of the model's 2 tensors \(bias\)"):
        load_pretrained(loaded, tmp_path / "part.pth")
    assert same_state(saved.state_dict(), loaded.state_dict())


def test_converted_files_are_for_detectron2s_checkpointer_too(tmp_path):
    """A classifier converted for a model has that model's names."""
    model, other = build(Classifier), build(Classifier)
    source = classifier_file(tmp_path / "any.pth")
    convert_checkpoint(source, tmp_path / "converted.pth", model=model)
    DetectionCheckpointer(model).load(str(tmp_path / "converted.pth"))
    load_pretrained(other, source)
    for name in of_backbone(TINY):
        ours = f"body.{name}"
        assert torch.equal(model.state_dict()[ours], other.state_dict()[ours])


@pytest.mark.skipif(not USE_DETECTRON2, reason="needs Detectron2's own models")
@pytest.mark.parametrize("name", ["fcos_iwin_t_fpn", "panoptic_fpn_iwin_t", "retinanet_iwin_t_fpn"])
def test_detectron2s_detectors(tmp_path, name):
    """Of those that were not published the backbone is started; a suggestion there is none."""
    path = ROOT / f"projects/backbone_in_detectron2/{name}_1x.py"
    config = LazyConfig.load(str(path)).model
    model = build(lambda: instantiate(config), memory=False)
    report = load_pretrained(model, classifier_file(tmp_path / "any.pth"))
    prefix = "backbone.bottom_up."
    assert {f"{prefix}{name}" for name in of_backbone(TINY)} == set(report.loaded)
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(model, detector_file(tmp_path / "mask.pth", MASK_RCNN_T))
    assert "give weights of such a model, or take its backbone alone" in str(caught.value)
    report = load_pretrained(model, tmp_path / "mask.pth", part="backbone")
    backbone = {name for name in model.state_dict() if name.startswith(prefix)}
    assert set(report.loaded) == backbone


def test_options_are_for_models_without_iwin_too(tmp_path):
    saved, loaded = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.save(saved.state_dict(), tmp_path / "linear.pth")
    bias = loaded.bias.detach().clone()
    options = LoadOptions(leave_out=("bias",))
    Checkpointer(loaded).load(str(tmp_path / "linear.pth"), options=options)
    assert torch.equal(loaded.weight, saved.weight) and torch.equal(loaded.bias, bias)


# ---- options ------------------------------------------------------------------------------------


def test_the_backbone_of_another_detector(tmp_path):
    saved, model = small_detector("mask_rcnn", 3), small_detector("cascade_mask_rcnn", 7)
    torch.save({"model": saved.state_dict()}, tmp_path / "mask.pth")
    before = copied(model)
    with pytest.raises(CheckpointError, match=r"a Mask R-CNN .* part=backbone"):
        load_pretrained(model, tmp_path / "mask.pth")
    assert same_state(before, model.state_dict())
    report = load_pretrained(model, tmp_path / "mask.pth", part="backbone")
    assert same_state(model.backbone.bottom_up.state_dict(), saved.backbone.bottom_up.state_dict())
    heads = {k: v for k, v in before.items() if not k.startswith("backbone.bottom_up.")}
    assert same_state(heads, {k: model.state_dict()[k] for k in heads})
    assert set(report.missing) == set(heads) - {n for n in heads if n.endswith("tracked")}


@pytest.mark.parametrize("project", ["mask_rcnn", "cascade_mask_rcnn"])
def test_boxes_of_a_detector_with_masks(tmp_path, project):
    saved, model = small_detector(project), small_detector(project, boxes=True)
    torch.save({"model": saved.state_dict()}, tmp_path / "masks.pth")
    with pytest.raises(CheckpointError, match=r"leave_out=\['roi_heads\.mask_head'\]"):
        load_pretrained(model, tmp_path / "masks.pth")
    report = load_pretrained(model, tmp_path / "masks.pth", leave_out=["roi_heads.mask_head"])
    whole = saved.state_dict()
    assert same_state({name: whole[name] for name in model.state_dict()}, model.state_dict())
    assert set(report.unexpected) == {n for n in whole if n.startswith("roi_heads.mask_head.")}


def test_what_is_left_out_stays_as_it_was(tmp_path):
    saved, model = small_detector(), small_detector()
    torch.save({"model": saved.state_dict()}, tmp_path / "all.pth")
    before = copied(model)
    load_pretrained(model, tmp_path / "all.pth", leave_out=["proposal_generator", "*.fc1.weight"])
    for name, value in model.state_dict().items():
        left = name.startswith("proposal_generator.") or name.endswith(".fc1.weight")
        assert torch.equal(value, (before if left else saved.state_dict())[name]), name
    with pytest.raises(CheckpointError, match=r"leave_out names 'rpn'.* correct it"):
        load_pretrained(model, tmp_path / "all.pth", leave_out=["rpn"])


def is_class_tensor(name):
    return any(part in name for part in ("cls_score", "bbox_pred", "predictor.weight")) or (
        "mask_head" in name and "predictor" in name
    )


def test_other_classes_are_an_explicit_choice(tmp_path):
    saved, model = small_detector(num_classes=5), small_detector(num_classes=3)
    torch.save({"model": saved.state_dict()}, tmp_path / "five.pth")
    before = copied(model)
    with pytest.raises(CheckpointError, match=r"with 5 classes, the model has 3 .*classes=new"):
        load_pretrained(model, tmp_path / "five.pth")
    assert same_state(before, model.state_dict())
    report = load_pretrained(model, tmp_path / "five.pth", classes="new")
    assert len(report.missing) == 18 and set(report.missing.values()) == {"other classes"}
    for name, value in model.state_dict().items():
        assert torch.equal(value, (before if is_class_tensor(name) else saved.state_dict())[name])


@pytest.mark.parametrize("project", ["mask_rcnn", "cascade_mask_rcnn"])
@pytest.mark.parametrize("as_file", [False, True])
def test_classes_by_their_numbers_in_the_file(tmp_path, project, as_file):
    saved, model = small_detector(project, 5), small_detector(project, 3)
    torch.save({"model": saved.state_dict()}, tmp_path / "five.pth")
    before, classes = copied(model), [4, -1, 0]
    if as_file:
        (tmp_path / "classes.txt").write_text("4\n-1\n0\n")
        classes = str(tmp_path / "classes.txt")
    report = load_pretrained(model, tmp_path / "five.pth", classes=classes)
    assert not report.missing and not report.unexpected
    theirs, ours = saved.state_dict(), model.state_dict()
    for name in filter(is_class_tensor, ours):
        rows = 4 if "bbox_pred" in name else 1
        split = [state[name].split(rows) for state in (theirs, ours, before)]
        for number, source in enumerate([4, -1, 0]):
            expected = split[2][number] if source < 0 else split[0][source]
            assert torch.equal(split[1][number], expected), name
        if "cls_score" in name:
            assert torch.equal(split[1][3], split[0][5])  # the background


def test_classes_of_an_image_classifier(tmp_path):
    """From 22K to 1K classes, say: a head's change of classes is asked for, or refused."""

    class ImageClassifier(IwinTransformer):
        def __init__(self, num_classes):
            super().__init__(embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8))
            self.norm, self.head = nn.LayerNorm(128), nn.Linear(128, num_classes)

    many, few = ImageClassifier(30), ImageClassifier(10)
    torch.save({"model": many.state_dict()}, tmp_path / "many.pth")
    with pytest.raises(CheckpointError, match="with 30 classes, the model has 10 classes"):
        load_pretrained(few, tmp_path / "many.pth")
    load_pretrained(few, tmp_path / "many.pth", classes=list(range(20, 30)))
    assert torch.equal(few.head.weight, many.head.weight[20:])
    assert torch.equal(few.head.bias, many.head.bias[20:])
    head = nn.init.ones_(few.head.weight).clone()
    load_pretrained(few, tmp_path / "many.pth", classes="new")
    assert torch.equal(few.head.weight, head) and torch.equal(few.norm0.weight, many.norm0.weight)


@pytest.mark.parametrize("classes", [[0, 1], [0, 1, 5], [0, 1, 2, 3]])
def test_classes_that_are_not_the_models(tmp_path, classes):
    torch.save({"model": small_detector(num_classes=5).state_dict()}, tmp_path / "five.pth")
    with pytest.raises(CheckpointError, match="for each of the model's 3 classes, give that of"):
        load_pretrained(small_detector(num_classes=3), tmp_path / "five.pth", classes=classes)


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_other_channels_are_an_explicit_choice(tmp_path, channels):
    colours = torch.randn(96, 3, 4, 4)
    torch.save({**state_dict(TINY), "patch_embed.proj.weight": colours}, tmp_path / "rgb.pth")
    model = build(lambda: iwin_tiny(in_chans=channels))
    with pytest.raises(CheckpointError, match=f"images of 3 channels, this one is for {channels}"):
        load_pretrained(model, tmp_path / "rgb.pth")
    load_pretrained(model, tmp_path / "rgb.pth", channels="adapt")
    # An image of equal channels gives what it gave.
    weight = model.patch_embed.proj.weight
    torch.testing.assert_close(weight.sum(1), colours.sum(1))
    if channels == 6:
        torch.testing.assert_close(weight[:, :3], colours / 2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"part": "neck"}, "part=neck makes no sense: set it to all or backbone"),
        ({"classes": "none"}, "classes=none makes no sense: set it to same, new or a file"),
        ({"classes": []}, "classes=.. makes no sense"),
        ({"classes": [1.5]}, "classes=.1.5. makes no sense"),
        ({"num_heads": [0, 1]}, "num_heads=.0, 1. makes no sense"),
        ({"channels": "more"}, "channels=more makes no sense"),
        ({"leave_out": [3]}, "leave_out=.3. makes no sense"),
    ],
)
def test_options_that_make_no_sense(tmp_path, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_pretrained(nn.Linear(1, 1), tmp_path / "never read.pth", **options)


def test_a_file_of_classes_with_words_in_it(tmp_path):
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(ConfigError, match="a file with a whole number in each line"):
        load_pretrained(nn.Linear(1, 1), "any.pth", classes=str(tmp_path / "classes.txt"))


# ---- the report ---------------------------------------------------------------------------------


def test_the_report(tmp_path, tiny, caplog):
    logger = logging.getLogger("iwin_d2.checkpoint.pretrained")
    logger.addHandler(caplog.handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        report = load_pretrained(tiny, classifier_file(tmp_path / f"{TINY}.pth"))
    finally:
        logger.removeHandler(caplog.handler)
        logger.setLevel(level)
    assert str(report) in caplog.text
    title, header, *rows = str(report).splitlines()
    assert title.endswith(f"the published {TINY}, under the published classifiers' names")
    assert header.split() == ["part", "mapped", "missing", "unexpected"]
    table = {row.split()[0]: row.split()[1:] for row in rows}
    assert table["layers"] == ["176", "-", "-"]
    assert table["norm"][:3] == ["-", "8", "2"]
    assert " ".join(table["norm"][3:]) == "none in a classifier; not of the backbone"
    assert table["all"] == ["180", "8", "4"]
    assert "head.weight: unexpected, not of the backbone" in report.lines()
    assert "norm0.bias: missing, none in a classifier" in report.lines()
    assert len(report.lines()) == 192
