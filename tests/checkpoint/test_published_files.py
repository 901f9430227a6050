"""Every key of every published model has its place, and the table of them is right."""

import json
import math

import pytest
from published_files import (
    ROOT,
    build,
    classifier_file,
    detector,
    detector_file,
    manifest,
    manifests,
    segmenter,
)

from iwin_d2.checkpoint import convert_checkpoint
from iwin_d2.checkpoint.architecture import HEADS, SIZES, describe
from iwin_d2.checkpoint.layouts import find_layout
from iwin_d2.checkpoint.published import PUBLISHED, find_published, nearest_published
from iwin_d2.checkpoint.shapes import expected_shapes
from iwin_d2.modeling import IwinTransformer, iwin_video_classifier

SHARED = ROOT.parent / "shared/manifests"
CLASSIFIERS, DETECTORS = manifests("cls"), manifests("det")
SEGMENTERS, VIDEO = manifests("seg"), manifests("vid")


def size_of(name):
    return next(
        f"Iwin-{word[0].upper()}" for word in ("tiny", "small", "base", "large") if word in name
    )


def renamed(published):
    """Shapes by this project's names; asserts that every key has one, and none is taken twice."""
    layout = find_layout(published["state_dict"])
    names = [layout.rename(key) for key in published["state_dict"]]
    assert None not in names and len(set(names)) == len(names)
    return dict(zip(names, map(tuple, published["state_dict"].values())))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the reference's manifests are not at hand")
@pytest.mark.parametrize("kind", ["cls", "det", "seg", "vid"])
def test_the_manifests_are_the_reference_implementations(kind):
    assert manifests(kind) == json.loads((SHARED / f"{kind}.json").read_text())


@pytest.mark.parametrize("name", DETECTORS)
def test_every_key_of_a_published_detector_is_one_of_the_config(name):
    model = detector("cascade_mask_rcnn" if "cascade" in name else "mask_rcnn", size_of(name))
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert renamed(DETECTORS[name]) == shapes
    assert sum(p.numel() for p in model.parameters()) == DETECTORS[name]["params"]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_key_of_a_published_classifier_is_known(name):
    shapes = renamed(CLASSIFIERS[name])
    expected = expected_shapes(describe(shapes), last_depthwise=name.endswith("16_1024"))
    assert shapes == expected
    assert sum(map(math.prod, shapes.values())) == CLASSIFIERS[name]["params"]


@pytest.mark.parametrize("name", [*CLASSIFIERS, *DETECTORS, *SEGMENTERS, *VIDEO])
def test_every_published_file_is_converted_whole(tmp_path, name):
    write = classifier_file if name in CLASSIFIERS else detector_file
    report = convert_checkpoint(write(tmp_path / "any.pth", name))
    assert sorted(report.loaded.values()) == sorted(manifest(name)["state_dict"])
    assert not report.missing and not report.unexpected and not report.notes


@pytest.mark.parametrize("name", ["cls", "det", "seg", "vid"])
def test_what_a_published_model_is(name):
    tasks = {
        "cls": {"image classifier"},
        "det": {"Cascade Mask R-CNN", "Mask R-CNN"},
        "seg": {"UPerNet"},
        "vid": {"video classifier"},
    }
    classes = {"cls": 1000, "det": 80, "seg": 150, "vid": 400}
    found = set()
    for model, published in manifests(name).items():
        architecture = describe(renamed(published))
        assert architecture.size == size_of(model)
        assert architecture.num_classes == classes[name]
        assert architecture.in_chans == 3
        found.add(architecture.task)
    assert found == tasks[name]


@pytest.mark.parametrize("name", VIDEO)
def test_every_key_of_a_published_video_classifier_is_the_models(name):
    model = build(lambda: iwin_video_classifier(name), memory=False)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert renamed(VIDEO[name]) == shapes == expected_shapes(describe(shapes))
    assert sum(map(math.prod, shapes.values())) == VIDEO[name]["params"]


@pytest.mark.parametrize("name", SEGMENTERS)
def test_every_key_of_a_published_segmenter_is_one_of_the_config(name):
    model = segmenter(size_of(name))
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert renamed(SEGMENTERS[name]) == shapes == expected_shapes(describe(shapes))
    assert sum(p.numel() for p in model.parameters()) == SEGMENTERS[name]["params"]


def test_the_table_has_every_published_file_once():
    assert len(PUBLISHED) == 9 + 12 + 7 + 3 + 2
    assert all(name == published.name for name, published in PUBLISHED.items())
    assert set(CLASSIFIERS) - set(PUBLISHED) == {"iwin_large_patch4_window7_224"}  # 22K alone
    assert set(manifests("vid")) <= set(PUBLISHED)


def test_the_heads_of_the_table_are_those_of_the_facts():
    """S classifiers of ImageNet-1K alone have others than their size has."""
    others = {n for n, p in PUBLISHED.items() if p.num_heads != HEADS[p.architecture.size]}
    assert others == {
        "iwin_small_patch4_window7_224",
        "iwin_small_patch4_window12_384",
        "iwin_small_patch4_window16_512",
        "iwin_small_patch4_window16_1024",
    }
    assert {PUBLISHED[name].num_heads for name in others} == {(3, 4, 8, 16)}


def test_sizes_and_heads_are_those_of_the_models():
    for size, (embed_dim, depths) in SIZES.items():
        assert all(embed_dim * 2**i % heads == 0 for i, heads in enumerate(HEADS[size]))
        assert len(depths) == 4
    model = IwinTransformer()  # T
    assert [stage.blocks[0].attn.num_heads for stage in model.layers] == list(HEADS["Iwin-T"])


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("iwin_tiny_patch4_window7_224.pth", "iwin_tiny_patch4_window7_224"),
        ("iwin_tiny_patch4_window7_224", "iwin_tiny_patch4_window7_224"),
        ("iwin_tiny_patch4_window7_224-0123abcd.pth", "iwin_tiny_patch4_window7_224"),
        ("iwin_tiny_patch4_window7_224 (1).pth", "iwin_tiny_patch4_window7_224"),
        ("iwin_base_patch4_window7_224_22k.pth", "iwin_base_patch4_window7_224_22k"),
        ("iwin_tiny_patch4_window7_224_finetuned.pth", None),
        ("model_final.pth", None),
    ],
)
def test_a_published_file_by_its_name(file, name):
    found = find_published(file)
    assert (found and found.name) == name


@pytest.mark.parametrize(
    ("task", "size", "name"),
    [
        ("cascade_mask_rcnn", "Iwin-T", "iwin_tiny_window7_cascade_mask_rcnn_1x_coco"),
        ("cascade_mask_rcnn", "Iwin-S", "iwin_small_window7_cascade_mask_rcnn_3x_coco"),
        ("mask_rcnn", "Iwin-S", "iwin_small_window7_mask_rcnn_1x_coco"),
    ],
)
def test_the_nearest_published_checkpoint(task, size, name):
    shapes = {k: tuple(v.shape) for k, v in detector(task, size).state_dict().items()}
    assert nearest_published(shapes).name == name


def test_nothing_is_near_to_a_model_of_another_kind():
    assert nearest_published({"conv.weight": (3, 3)}) is None
