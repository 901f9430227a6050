"""Head counts leave no trace in shapes: a file is not loaded with others than it was made with."""

import pytest
import torch
from published_files import (
    CASCADE_T,
    MASK_RCNN_T,
    SMALL,
    TINY,
    build,
    classifier_file,
    copied,
    detector,
    detector_file,
    manifests,
    same_state,
    state_dict,
)

from iwin_d2.checkpoint import Checkpointer, convert_checkpoint, load_pretrained
from iwin_d2.checkpoint.architecture import HEADS
from iwin_d2.checkpoint.published import HEADS_OF_S_1K
from iwin_d2.checkpoint.reading import read_checkpoint
from iwin_d2.checkpoint.weights import recognise
from iwin_d2.errors import CheckpointError
from iwin_d2.modeling import iwin_base, iwin_small, iwin_tiny

S_1K = list(HEADS_OF_S_1K)
S = list(HEADS["Iwin-S"])
DET_S = next(name for name in manifests("det") if "mask_rcnn_iwin_small" in name)
SEG_S = next(name for name in manifests("seg") if "small" in name)


def small(heads):
    return build(lambda: iwin_small(num_heads=heads), memory=False)


def assert_refused(model, path, theirs, ours, reason, **options):
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(model, path, **options)
    sentence = str(caught.value)
    assert f"was trained with {theirs} attention heads ({reason}" in sentence
    assert f"the model has {ours} and would compute something else" in sentence
    assert f"num_heads={theirs}" in sentence and f"num_heads={ours}" in sentence
    assert "\n" not in sentence and str(path) in sentence


def test_the_imagenet_1k_classifiers_of_size_s(tmp_path):
    """By name and shapes, or by shapes alone."""
    for name in (f"{SMALL}.pth", "any.pth"):
        path = classifier_file(tmp_path / name, SMALL)
        assert_refused(small(S), path, S_1K, S, "as ")
        assert len(load_pretrained(small(S_1K), path).loaded) == 348
    named = tmp_path / f"{SMALL}.pth"
    assert_refused(small(S), named, S_1K, S, f"as published {SMALL}")


def test_the_one_with_convolutions_in_the_last_stage(tmp_path):
    name = "iwin_small_patch4_window16_1024"
    path = classifier_file(tmp_path / f"{name}.pth", name)
    stage = "layers.3.blocks"
    with pytest.raises(CheckpointError, match=rf"has 4 that the model has not \({stage}.0.dwconv"):
        load_pretrained(small(S_1K), path)
    assert_refused(small(S), path, S_1K, S, "as published", leave_out=[f"{stage}.*.dwconv.*"])
    report = load_pretrained(small(S_1K), path, leave_out=["*layers.3.*.dwconv.*"])
    assert list(report.unexpected.values()).count("left out") == 4


def test_heads_can_be_said_to_be_others(tmp_path):
    path = classifier_file(tmp_path / "any.pth", SMALL)
    assert len(load_pretrained(small(S), path, num_heads=S).loaded) == 348
    assert_refused(small(S_1K), path, S, S_1K, "as said", num_heads=S)


@pytest.mark.parametrize("classes", [21841, 21842])
def test_the_imagenet_22k_classifier_of_size_s(tmp_path, classes):
    shapes = {"head__weight": [classes, 768], "head__bias": [classes]}
    path = classifier_file(tmp_path / "any.pth", SMALL, **shapes)
    load_pretrained(small(S), path)
    assert_refused(small(S_1K), path, S, S_1K, "as the ImageNet-22K classifier of Iwin-S")


@pytest.mark.parametrize(
    "shapes",
    [
        {"head__weight": [37, 768], "head__bias": [37]},
        {"head__weight": None, "head__bias": None},
    ],
    ids=["fine-tuned", "without a head"],
)
def test_where_nothing_tells_the_heads_they_are_asked_for(tmp_path, shapes):
    path = classifier_file(tmp_path / "any.pth", SMALL, **shapes)
    for heads in (S, S_1K):
        with pytest.raises(CheckpointError) as caught:
            load_pretrained(small(heads), path)
        assert f"published with {S_1K} or {S}: say which" in str(caught.value)
        load_pretrained(small(heads), path, num_heads=heads)


@pytest.mark.parametrize("name", [DET_S, SEG_S])
def test_detectors_and_segmenters_of_size_s(tmp_path, name):
    path = detector_file(tmp_path / "any.pth", name)
    load_pretrained(small(S), path)
    assert_refused(small(S_1K), path, S, S_1K, "as every published ")


@pytest.mark.parametrize("size", ["tiny", "base", "large"])
def test_other_sizes_were_published_with_one_head_count(tmp_path, size):
    name = f"iwin_{size}_patch4_window7_224"
    path = classifier_file(tmp_path / "any.pth", name)
    heads = HEADS[f"Iwin-{size[0].upper()}"]
    assert recognise(read_checkpoint(path), path).provenance.num_heads == heads


def test_a_wrong_count_in_a_detector(tmp_path):
    model = detector("mask_rcnn", "Iwin-T", memory=True)
    for block in model.backbone.bottom_up.layers[2].blocks:
        block.attn.num_heads = 6
    path = detector_file(tmp_path / "any.pth", MASK_RCNN_T)
    before = copied(model)
    assert_refused(model, path, [3, 6, 12, 24], [3, 6, 6, 24], "as all published models of Iwin-T")
    assert same_state(before, model.state_dict())


YACS = {"MODEL": {"TYPE": "iwin", "IWIN": {"NUM_HEADS": [2, 4, 8, 16], "WINDOW_SIZE": 14}}}
MMCV = "model = dict(backbone=dict(embed_dim=96, num_heads=[2, 4, 8, 16], window_size=14))"


@pytest.mark.parametrize(
    "content",
    [
        {"model": state_dict(TINY), "config": YACS},
        {"state_dict": state_dict(CASCADE_T), "meta": {"config": MMCV}},
    ],
    ids=["yacs", "mmcv"],
)
def test_what_the_file_itself_says_wins(tmp_path, content):
    torch.save(content, tmp_path / f"{TINY}.pth")
    assert_refused(
        build(iwin_tiny, memory=False),
        tmp_path / f"{TINY}.pth",
        [2, 4, 8, 16],
        [3, 6, 12, 24],
        "as the file says",
    )
    model = build(lambda: iwin_tiny(num_heads=(2, 4, 8, 16)), memory=False)
    (note,) = load_pretrained(model, tmp_path / f"{TINY}.pth").notes
    assert note.startswith("trained with windows of 14, the model's are 7")


@pytest.mark.parametrize("said", [[3, 6, 12], "many", [3.5] * 4, None, [], {"a": 1}])
def test_nonsense_in_a_config_is_passed_over(tmp_path, said):
    content = {"model": state_dict(TINY), "config": {"NUM_HEADS": said}}
    torch.save(content, tmp_path / "any.pth")
    load_pretrained(build(iwin_tiny, memory=False), tmp_path / "any.pth")


def test_what_this_project_saves_says_its_heads(tmp_path):
    def make(heads):
        return build(lambda: iwin_base(num_heads=heads, depths=(1, 1, 1, 1)))

    Checkpointer(make((2, 4, 8, 16)), str(tmp_path)).save("mine")
    path = tmp_path / "mine.pth"
    assert torch.load(path, weights_only=True)["iwin_d2"]["num_heads"] == [2, 4, 8, 16]
    load_pretrained(make((2, 4, 8, 16)), path)
    assert_refused(make((4, 8, 16, 32)), path, [2, 4, 8, 16], [4, 8, 16, 32], "as the file says")
    # Resuming looks, too.
    other = Checkpointer(make((4, 8, 16, 32)), str(tmp_path))
    with pytest.raises(CheckpointError, match=r"trained with \[2, 4, 8, 16\] attention heads"):
        other.resume_or_load("", resume=True)


def test_conversion_keeps_what_is_known_of_the_heads(tmp_path):
    convert_checkpoint(classifier_file(tmp_path / "s.pth", SMALL), tmp_path / "converted.pth")
    assert_refused(small(S), tmp_path / "converted.pth", S_1K, S, "as the file says")


def test_another_window_is_noted(tmp_path):
    name = "iwin_base_patch4_window12_384"
    path = classifier_file(tmp_path / f"{name}.pth", "iwin_base_patch4_window7_224")
    report = load_pretrained(build(iwin_base, memory=False), path)
    (note,) = report.notes
    assert "windows of 12, the model's are 7" in note and note in str(report)
    assert not load_pretrained(build(lambda: iwin_base(window_size=12), memory=False), path).notes
