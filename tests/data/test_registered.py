"""Loading data sets by name, and what is said where their files or packages are missing."""

import json

import pytest

from iwin_d2.d2.data import DatasetCatalog
from iwin_d2.d2.data.datasets import register_coco_instances
from iwin_d2.data.registered import load_registered
from iwin_d2.errors import DataError


@pytest.fixture
def register():
    """Registers a function, or a json, under a name for the time of a test."""
    names = []

    def add(name, source):
        names.append(name)
        if callable(source):
            DatasetCatalog.register(name, source)
        else:
            register_coco_instances(name, {}, str(source), "images")
        return name

    yield add
    for name in names:
        DatasetCatalog.remove(name)


def test_records_with_objects_alone_or_all_of_them(register, tmp_path):
    path = tmp_path / "train.json"
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 8, "height": 8} for n in (1, 2)]
    box = {"id": 1, "image_id": 2, "category_id": 1, "bbox": [1, 1, 4, 4], "iscrowd": 0}
    categories = [{"id": 1, "name": "cat"}]
    content = {"images": images, "annotations": [box], "categories": categories}
    path.write_text(json.dumps(content))
    name = register("registered_with_negatives", path)
    assert [r["image_id"] for r in load_registered(name)] == [2]
    assert [r["image_id"] for r in load_registered([name], filter_empty=False)] == [1, 2]


def test_files_that_lie_elsewhere_are_a_matter_of_the_variable(register, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    missing = tmp_path / "coco" / "annotations" / "train.json"
    name = register("registered_in_datasets", missing)
    with pytest.raises(DataError) as caught:
        load_registered(name)
    assert str(caught.value) == (
        f"Data set registered_in_datasets cannot be loaded: {missing} does not exist "
        f"(DETECTRON2_DATASETS={tmp_path}): set DETECTRON2_DATASETS to the folder that has coco/ "
        "in it (docs/datasets.md), or train on data of your own by custom_coco.py."
    )


def test_without_the_variable_the_folder_is_datasets(register, monkeypatch):
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    name = register("registered_in_default", "datasets/nowhere/train.json")
    with pytest.raises(DataError, match=r"\(DETECTRON2_DATASETS is not set\): .* has nowhere/ in"):
        load_registered(name)


def test_a_path_of_ones_own_that_does_not_exist(register, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "other"))
    name = register("registered_elsewhere", tmp_path / "train.json")
    with pytest.raises(DataError, match=r"train.json does not exist: check the path that it is"):
        load_registered([name])


def test_a_package_that_is_missing_is_named(register):
    def load():
        raise ModuleNotFoundError("No module named 'lvis'", name="lvis")

    name = register("registered_with_a_package", load)
    with pytest.raises(DataError, match=r"without the package 'lvis': install it \(pip install"):
        load_registered(name)
