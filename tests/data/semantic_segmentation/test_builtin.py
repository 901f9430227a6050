"""ADE20K, Cityscapes and Pascal Context: where their files lie, and what their labels mean."""

import numpy as np
import pytest
from label_files import palette_file, write_labels, write_picture

from iwin_d2.d2.data import DatasetCatalog, MetadataCatalog
from iwin_d2.data.semantic_segmentation import (
    load_registered_segmentation,
    read_record_label,
    register_ade20k,
    register_cityscapes,
    register_pascal_context,
)
from iwin_d2.data.semantic_segmentation.class_lists import ADE20K, CITYSCAPES, PASCAL_CONTEXT
from iwin_d2.errors import ConfigError, DataError

SIZE = (16, 16)
EVERY_BYTE = np.arange(256, dtype=np.uint8).reshape(SIZE)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path


def labels_of(name: str) -> np.ndarray:
    (record,) = load_registered_segmentation(name)
    return read_record_label(record).ravel()


@pytest.mark.parametrize(
    ("split", "short"), [("training", "train"), ("validation", "val"), ("val", "val")]
)
def test_ade20k(root, split, short):
    folder = "training" if short == "train" else "validation"
    base = root / "ADEChallengeData2016"
    write_picture(base / "images" / folder / "ADE_1.jpg", SIZE)
    values = np.arange(256, dtype=np.uint8).clip(0, 150).reshape(SIZE)
    write_labels(base / "annotations" / folder / "ADE_1.png", values)
    name = register_ade20k(split)
    assert name == f"ade20k_{short}"
    expected = [255, *range(150), *[149] * 105]
    assert labels_of(name).tolist() == expected
    metadata = MetadataCatalog.get(name)
    assert (metadata.reduce_zero_label, metadata.ignore_label) == (True, 255)
    assert [metadata.stuff_classes[i] for i in (0, 12, 149)] == ["wall", "person", "flag"]


def test_cityscapes(root):
    base = root / "cityscapes"
    write_picture(base / "leftImg8bit" / "val" / "ulm" / "ulm_1_leftImg8bit.png", SIZE)
    folder = base / "gtFine" / "val" / "ulm"
    write_labels(folder / "ulm_1_gtFine_labelIds.png", (EVERY_BYTE % 34))
    write_labels(folder / "ulm_1_gtFine_instanceIds.png", EVERY_BYTE)
    name = register_cityscapes("val")
    labels = labels_of(name)[:34]
    metadata = MetadataCatalog.get(name)
    named = {i: metadata.stuff_classes[n] for i, n in enumerate(labels) if n != 255}
    assert len(named) == 19
    expected = {7: "road", 11: "building", 17: "pole", 26: "car", 33: "bicycle"}
    assert {i: named[i] for i in expected} == expected
    assert metadata.label_values[7] == 0 and metadata.label_values[0] == 255


@pytest.mark.parametrize("num_classes", [59, 60])
def test_pascal_context(root, num_classes):
    base = root / "VOC2010"
    for name in ("2008_1", "2008_2"):
        write_picture(base / "JPEGImages" / f"{name}.jpg", SIZE)
    palette_file(base / "JPEGImages" / "x.png")  # of no interest
    labels = EVERY_BYTE % 60
    (base / "SegmentationClassContext").mkdir()
    palette_file(base / "SegmentationClassContext" / "2008_2.png", labels)
    lists = base / "ImageSets" / "SegmentationContext"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2008_2\n")
    name = register_pascal_context("val", num_classes)
    found = labels_of(name)
    names = MetadataCatalog.get(name).stuff_classes
    assert len(names) == num_classes and names[-1] == "wood"
    assert found.max() == (255 if num_classes == 59 else 59)
    assert names[found[1]] == "aeroplane" and names[found[59]] == "wood"
    with pytest.raises(ConfigError, match="60 classes or, without background, 59, not 33"):
        register_pascal_context("val", 33)


@pytest.mark.parametrize(
    "register", [register_ade20k, register_cityscapes, register_pascal_context]
)
def test_files_that_are_not_there(root, register, monkeypatch):
    with pytest.raises(DataError, match=r"DETECTRON2_DATASETS=.*: set DETECTRON2_DATASETS to the"):
        load_registered_segmentation(register("val"))
    monkeypatch.delenv("DETECTRON2_DATASETS")
    monkeypatch.chdir(root)
    with pytest.raises(DataError, match="DETECTRON2_DATASETS is not set: set") as caught:
        load_registered_segmentation(register("val"))
    assert "docs/datasets.md" in str(caught.value)
    with pytest.raises(ConfigError, match="has no split 'test': choose training or validation"):
        register("test")


def test_names_are_not_detectron2s(root):
    names = [register_ade20k("val"), register_cityscapes("train"), register_pascal_context("val")]
    assert len(set(names)) == 3 and set(names) <= set(DatasetCatalog.list())


def test_class_lists():
    assert [len(names) for names in (ADE20K, CITYSCAPES, PASCAL_CONTEXT)] == [150, 19, 59]
    for names in (ADE20K, CITYSCAPES, PASCAL_CONTEXT):
        assert len(set(names)) == len(names)
        assert all(name == name.strip() and "\n" not in name for name in names)
    if "ade20k_sem_seg_val" in DatasetCatalog.list():  # Detectron2's, in other words
        theirs = MetadataCatalog.get("ade20k_sem_seg_val").stuff_classes
        same = [o == t.split(",")[0].strip() for o, t in zip(ADE20K, theirs)]
        assert sum(same) >= 140
        assert MetadataCatalog.get("cityscapes_fine_sem_seg_val").stuff_classes == list(CITYSCAPES)
