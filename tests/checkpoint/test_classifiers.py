"""Image and video classifiers: loaded whole, with other classes, and images into video."""

from pathlib import Path

import pytest
import torch
from published_files import (
    MASK_RCNN_T,
    SMALL,
    TINY,
    VIDEO_T,
    build,
    classifier_file,
    copied,
    detector_file,
    same_state,
    state_dict,
)

from iwin_d2.checkpoint import Checkpointer, LoadOptions, convert_checkpoint, load_pretrained
from iwin_d2.checkpoint.inflation import inflate
from iwin_d2.errors import CheckpointError
from iwin_d2.modeling import (
    IwinClassifier,
    IwinTransformer,
    IwinTransformer3D,
    VideoClassifier,
    inflate_2d_to_3d,
    iwin_classifier,
    iwin_tiny,
    iwin_video_classifier,
)

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SETTINGS = {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (2, 4, 8, 16)}


def small_classifier(num_classes=5, **kwargs):
    return build(lambda: IwinClassifier(num_classes=num_classes, **{**SETTINGS, **kwargs}))


def small_backbone(**kwargs):
    return build(lambda: IwinTransformer3D(**{**SETTINGS, **kwargs}))


def small_video(num_classes=5, **kwargs):
    backbone = {**SETTINGS, **kwargs}
    return build(lambda: VideoClassifier(IwinTransformer3D(**backbone), num_classes))


def video(name=VIDEO_T, **kwargs):
    return build(lambda: iwin_video_classifier(name, **kwargs))


def saved(path, model):
    """What training leaves, with heads and window beside the weights."""
    Checkpointer(model, str(path.parent)).save(path.stem)
    return path


def assert_has(model, weights):
    state = model.state_dict()
    for name, value in weights.items():
        torch.testing.assert_close(state[name], value.expand_as(state[name]), rtol=0, atol=0)


# ---- published ones, whole ----------------------------------------------------------------------


@pytest.mark.parametrize("name", [TINY, "iwin_small_patch4_window16_1024"])
def test_a_published_image_classifier(tmp_path, name):
    model = build(lambda: iwin_classifier(name))
    report = load_pretrained(model, classifier_file(tmp_path / f"{name}.pth", name))
    assert_has(model, state_dict(name))
    assert not (report.missing or report.unexpected or report.notes)


def test_a_published_video_classifier(tmp_path):
    model = video()
    report = load_pretrained(model, detector_file(tmp_path / "any.pth", VIDEO_T))
    assert_has(model, state_dict(VIDEO_T))
    assert not (report.missing or report.unexpected or report.notes)


@pytest.mark.parametrize("name", ["iwin_classifier", "video_recognizer"])
def test_the_references_weights_give_its_results(tmp_path, name):
    golden = torch.load(GOLDEN / f"{name}.pt", weights_only=True)
    golden = golden["models"][0] if "models" in golden else golden
    torch.save({"state_dict": golden["state_dict"]}, tmp_path / "golden.pth")
    classes = len(golden["logits" if "logits" in golden else "scores"][0])
    model = small_classifier(classes) if "logits" in golden else small_video(classes)
    load_pretrained(model, tmp_path / "golden.pth")
    with torch.no_grad():
        found = model.eval()(golden["input"].float())
    expected = golden["logits" if "logits" in golden else "scores"]
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_video_backbone_alone_takes_that_of_a_classifier(tmp_path):
    model = build(IwinTransformer3D)
    report = load_pretrained(model, detector_file(tmp_path / "any.pth", VIDEO_T))
    assert len(report.loaded) == len(model.state_dict()) and not report.missing
    assert set(report.unexpected) == {"cls_head.fc_cls.weight", "cls_head.fc_cls.bias"}
    # And gives it to a classifier with other classes.
    other, backbone = small_video(), small_backbone()
    head = copied(other.cls_head)
    torch.save(backbone.state_dict(), tmp_path / "backbone.pth")
    report = load_pretrained(other, tmp_path / "backbone.pth")
    assert same_state(other.backbone.state_dict(), backbone.state_dict())
    assert same_state(other.cls_head.state_dict(), head)
    assert report.missing["cls_head.fc_cls.bias"] == "not of the backbone"


def test_a_classifier_without_a_head_takes_all_but_the_head(tmp_path):
    saved_model, model = small_classifier(), small_classifier(0)
    report = load_pretrained(model, saved(tmp_path / "saved.pth", saved_model))
    assert_has(saved_model, model.state_dict())
    assert set(report.unexpected) == {"head.weight", "head.bias"} and not report.missing


# ---- heads --------------------------------------------------------------------------------------


def test_the_heads_of_size_s(tmp_path):
    path = classifier_file(tmp_path / f"{SMALL}.pth", SMALL)
    load_pretrained(build(lambda: iwin_classifier(SMALL)), path)
    for make in (
        lambda: iwin_classifier(SMALL, num_heads=(3, 6, 12, 24)),
        lambda: iwin_video_classifier("iwin_small_patch244_window77_kinetics400_1k"),
    ):
        with pytest.raises(CheckpointError, match=r"trained with \[3, 4, 8, 16\] .*has \[3, 6, 12"):
            load_pretrained(build(make, memory=False), path)


def test_the_heads_of_a_video_classifier_of_size_s(tmp_path):
    name = "iwin_small_patch244_window77_kinetics400_1k"
    path = detector_file(tmp_path / "any.pth", name)
    model = build(lambda: iwin_video_classifier(name, num_heads=(3, 4, 8, 16)), memory=False)
    with pytest.raises(CheckpointError, match=r"every published video classifier on Iwin-S"):
        load_pretrained(model, path)


def test_a_higher_resolution_with_convolutions_in_the_last_stage(tmp_path):
    """Fine-tuning for 1024 pixels: a part of each block of the last stage is new, if so said."""
    path = saved(tmp_path / "low.pth", small_classifier(img_size=512, window_size=16))
    model = small_classifier(img_size=1024, window_size=16)
    with pytest.raises(CheckpointError, match=r"lacks 2 of the model's .*layers\.3.*dwconv"):
        load_pretrained(model, path)
    report = load_pretrained(model, path, leave_out=["layers.3.*.dwconv.*"])
    name = "layers.3.blocks.0.dwconv.depthwise"
    assert report.missing == {f"{name}.weight": "left out", f"{name}.bias": "left out"}


# ---- other classes ------------------------------------------------------------------------------


def of_22k(path, **changes):
    head = {"head__weight": [21841, 1024], "head__bias": [21841]}
    return classifier_file(path, "iwin_base_patch4_window7_224", **head, **changes)


def test_from_22k_to_1k_is_said(tmp_path):
    path = of_22k(tmp_path / "iwin_base_patch4_window7_224_22k.pth")
    model = build(lambda: iwin_classifier("iwin_base_patch4_window7_224_22kto1k"))
    before = copied(model)
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(model, path)
    sentence = str(caught.value)
    assert "an image classifier on Iwin-B with 21841 classes, the model has 1000" in sentence
    assert "classes=new" in sentence
    assert same_state(before, model.state_dict())
    report = load_pretrained(model, path, classes="new")
    assert report.missing == dict.fromkeys(("head.weight", "head.bias"), "other classes")
    assert torch.equal(model.head.weight, before["head.weight"])
    assert not torch.equal(model.norm.weight, before["norm.weight"])


def test_a_22k_classifier_itself(tmp_path):
    name = "iwin_base_patch4_window7_224_22k"
    model = build(lambda: iwin_classifier(name), memory=False)
    report = load_pretrained(model, of_22k(tmp_path / f"{name}.pth"))
    assert not report.missing and not report.unexpected


@pytest.mark.parametrize("make", [small_classifier, small_video])
def test_classes_of_the_model_out_of_those_of_the_file(tmp_path, make):
    theirs, ours = make(7), make(3)
    path, fresh = saved(tmp_path / "seven.pth", theirs), copied(ours)
    load_pretrained(ours, path, classes=[6, -1, 2])
    name = "head" if make is small_classifier else "cls_head.fc_cls"
    for part in ("weight", "bias"):
        rows, found = theirs.state_dict()[f"{name}.{part}"], ours.state_dict()[f"{name}.{part}"]
        assert torch.equal(found[0], rows[6]) and torch.equal(found[2], rows[2])
        assert torch.equal(found[1], fresh[f"{name}.{part}"][1])


def test_new_classes_of_a_video_classifier(tmp_path):
    model = video(num_classes=7)
    path = detector_file(tmp_path / "any.pth", VIDEO_T)
    with pytest.raises(CheckpointError, match="with 400 classes, the model has 7 classes"):
        load_pretrained(model, path)
    report = load_pretrained(model, path, classes="new")
    assert set(report.missing) == {"cls_head.fc_cls.weight", "cls_head.fc_cls.bias"}


# ---- images into video --------------------------------------------------------------------------


def test_an_image_classifier_starts_a_video_classifier(tmp_path):
    model = video(num_classes=7)
    before = copied(model)
    path = classifier_file(tmp_path / "any.pth")
    report = load_pretrained(model, path)
    patches = state_dict(TINY)["patch_embed.proj.weight"]
    assert_has(model.backbone, {"patch_embed.proj.weight": (patches / 2).unsqueeze(2)})
    inflated = inflate_2d_to_3d({k: v.contiguous() for k, v in state_dict(TINY).items()})
    assert_has(model.backbone, inflated)
    assert report.missing == {
        "backbone.time_embed": "none in an image model",
        "cls_head.fc_cls.weight": "not of the backbone",
        "cls_head.fc_cls.bias": "not of the backbone",
    }
    assert set(report.unexpected) == {"head.weight", "head.bias"}
    (note,) = report.notes
    assert note.startswith("inflated: ") and "over 2 frames and divided by 2" in note
    for name in report.missing:
        assert torch.equal(model.state_dict()[name], before[name])


def test_inflation_is_the_public_functions():
    state = small_classifier().state_dict()
    name = "patch_embed.proj.weight"
    torch.testing.assert_close(inflate(state[name], 3), inflate_2d_to_3d(state, 3)[name])


@pytest.mark.parametrize("part", ["backbone", "all"])
def test_a_detectors_backbone_starts_a_video_classifier_if_asked(tmp_path, part):
    model = build(lambda: iwin_video_classifier(VIDEO_T), memory=False)
    path = detector_file(tmp_path / "any.pth", MASK_RCNN_T)
    if part == "all":
        with pytest.raises(CheckpointError, match=r"is a Mask R-CNN .*part=backbone"):
            load_pretrained(model, path)
        return
    report = load_pretrained(model, path, part=part)
    assert report.missing["backbone.norm.weight"] == "none in the file's backbone"
    assert report.unexpected["backbone.norm3.weight"] == "not built"


def test_a_backbone_for_images_starts_one_for_video(tmp_path):
    images, model = build(lambda: IwinTransformer(**SETTINGS)), small_backbone()
    path = saved(tmp_path / "images.pth", images)
    report = load_pretrained(model, path)
    assert_has(model, inflate_2d_to_3d(images.state_dict()))
    assert set(report.missing) == {"time_embed", "norm.weight", "norm.bias"}


def test_channels_are_spread_and_inflated(tmp_path):
    theirs, model = small_classifier(), small_video(in_chans=6)
    path = saved(tmp_path / "three.pth", theirs)
    with pytest.raises(CheckpointError, match="of 3 channels, this one is for 6"):
        load_pretrained(model, path)
    load_pretrained(model, path, channels="adapt")
    expected = theirs.patch_embed.proj.weight.repeat(1, 2, 1, 1).unsqueeze(2) / 4
    found = model.backbone.patch_embed.proj.weight
    torch.testing.assert_close(found, expected.expand_as(found))


def test_evaluation_wants_all_of_a_video_classifier(tmp_path):
    model = video()
    path = classifier_file(tmp_path / "any.pth")
    with pytest.raises(CheckpointError, match=r"do not fill the model: it is an image classifier"):
        Checkpointer(model).load(path, fill=True, options=LoadOptions())


@pytest.mark.parametrize("make", [lambda: iwin_classifier(TINY), iwin_tiny])
def test_a_video_model_starts_no_image_model(tmp_path, make):
    model = build(make)
    before = copied(model)
    path = detector_file(tmp_path / "any.pth", VIDEO_T)
    for part in ("all", "backbone"):
        with pytest.raises(CheckpointError) as caught:
            load_pretrained(model, path, part=part)
        sentence = str(caught.value)
        assert f"{path} is a video classifier on Iwin-T with 400 classes" in sentence
        assert TINY in sentence and "\n" not in sentence
    assert same_state(before, model.state_dict())


def test_clips_of_another_length(tmp_path):
    """The embedding that the model would make while it runs."""
    theirs, ours = small_backbone(), small_backbone(num_frames=8)
    torch.nn.init.normal_(theirs.time_embed)
    report = load_pretrained(ours, saved(tmp_path / "long.pth", theirs))
    assert report.notes == ("the time embedding is interpolated to 4 steps of time",)
    torch.testing.assert_close(ours._time_embedding(4), theirs._time_embedding(4))


# ---- converting ---------------------------------------------------------------------------------


def test_converted_for_a_video_model(tmp_path):
    model, other = video(), video()
    source = classifier_file(tmp_path / "any.pth")
    convert_checkpoint(source, tmp_path / "converted.pth", model=model)
    missing, unexpected = other.load_state_dict(
        torch.load(tmp_path / "converted.pth", weights_only=True)["model"], strict=False
    )
    assert not unexpected
    assert set(missing) == {
        "backbone.time_embed",
        "cls_head.fc_cls.weight",
        "cls_head.fc_cls.bias",
    }
    load_pretrained(model, source)
    same = {k: v for k, v in model.state_dict().items() if k not in missing}
    assert same_state(same, {k: other.state_dict()[k] for k in same})


def test_training_goes_on_with_what_it_saved(tmp_path):
    for make in (small_classifier, small_video):
        one, other = make(), make()
        path = saved(tmp_path / f"{make.__name__}.pth", one)
        report = load_pretrained(other, path)
        assert same_state(one.state_dict(), other.state_dict())
        assert not (report.missing or report.unexpected or report.notes)
