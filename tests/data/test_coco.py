"""Registration of COCO data sets by path, and what follows from their json."""

import json
import os
import uuid
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.config import instantiate
from iwin_d2.d2.data import DatasetCatalog, MetadataCatalog
from iwin_d2.data.coco import (
    check_same_classes,
    coco_class_names,
    num_coco_classes,
    register_coco,
)
from iwin_d2.errors import DataError


def write_dataset(folder, names=("nut", "fig"), image="a.png", **change) -> tuple[str, str]:
    """A data set of one image and one object; returns json file and image folder."""
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((20, 30, 3), dtype=np.uint8)).save(folder / image)
    data = {
        # Ids with a gap, not in order: classes are numbered by ascending id.
        "categories": [{"id": 10 * i + 3, "name": name} for i, name in enumerate(names)][::-1],
        "images": [{"id": 5, "file_name": image, "width": 30, "height": 20}],
        "annotations": [
            {
                "id": 1,
                "image_id": 5,
                "category_id": 13,
                "bbox": [2, 3, 10, 8],
                "area": 80,
                "iscrowd": 0,
                "segmentation": [[2, 3, 12, 3, 12, 11, 2, 11]],
            }
        ],
        **change,
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(data))
    return str(path), str(folder)


@pytest.fixture
def name() -> str:
    return f"test_{uuid.uuid4().hex}"


def test_a_registered_data_set_loads(tmp_path, name):
    json_file, images = write_dataset(tmp_path)
    assert register_coco(name, json_file, images) == name
    (record,) = DatasetCatalog.get(name)
    assert record["file_name"] == os.path.join(images, "a.png")
    assert (record["image_id"], record["width"], record["height"]) == (5, 30, 20)
    assert [a["category_id"] for a in record["annotations"]] == [1]
    metadata = MetadataCatalog.get(name)
    assert list(metadata.thing_classes) == ["nut", "fig"]
    assert metadata.evaluator_type == "coco"
    assert metadata.json_file == json_file


def test_registering_twice_is_fine_and_other_paths_replace(tmp_path, name):
    register_coco(name, *write_dataset(tmp_path / "one"))
    register_coco(name, *write_dataset(tmp_path / "one"))
    assert DatasetCatalog.get(name)[0]["file_name"].endswith("a.png")
    register_coco(name, *write_dataset(tmp_path / "two", names=("oak", "elm"), image="b.png"))
    assert DatasetCatalog.get(name)[0]["file_name"].endswith("b.png")
    assert list(MetadataCatalog.get(name).thing_classes) == ["oak", "elm"]


def test_the_name_of_another_data_set_is_refused(tmp_path, name):
    DatasetCatalog.register(name, list)
    with pytest.raises(DataError, match="already in use"):
        register_coco(name, *write_dataset(tmp_path))
    DatasetCatalog.remove(name)


def test_registration_reads_nothing_and_loading_checks(tmp_path, name):
    register_coco(name, str(tmp_path / "gone.json"), str(tmp_path))
    with pytest.raises(DataError, match=r"gone\.json does not exist"):
        DatasetCatalog.get(name)


def test_bad_records_stop_the_loading(tmp_path, name):
    json_file, images = write_dataset(tmp_path, categories=[{"id": 1, "name": "nut"}])
    register_coco(name, json_file, images)
    with pytest.raises(DataError, match="category_id 13"):
        DatasetCatalog.get(name)


def test_an_empty_data_set_is_refused_unless_asked_for(tmp_path, name):
    json_file, images = write_dataset(tmp_path, annotations=[])
    register_coco(name, json_file, images)
    with pytest.raises(DataError, match="not one annotation"):
        DatasetCatalog.get(name)
    register_coco(name, json_file, images, require_objects=False)
    assert len(DatasetCatalog.get(name)) == 1


def test_warnings_are_logged_and_the_data_set_loads(tmp_path, name, caplog):
    json_file, images = write_dataset(tmp_path)
    data = json.loads((tmp_path / "instances.json").read_text())
    data["annotations"].append({**data["annotations"][0], "id": 2, "bbox": [1, 1, 5, 0]})
    (tmp_path / "instances.json").write_text(json.dumps(data))
    register_coco(name, json_file, images)
    with caplog.at_level("WARNING", logger="iwin_d2.data.coco"):
        assert len(DatasetCatalog.get(name)) == 1
    assert "annotation 2" in caplog.text


def test_warnings_are_counted_by_kind(tmp_path, name, caplog):
    json_file, images = write_dataset(tmp_path)
    data = json.loads((tmp_path / "instances.json").read_text())
    first = data["annotations"][0]
    data["annotations"] += [{**first, "id": i, "bbox": [1, 1, 5, 0]} for i in range(2, 12)]
    del first["iscrowd"]
    (tmp_path / "instances.json").write_text(json.dumps(data))
    register_coco(name, json_file, images)
    with caplog.at_level("WARNING", logger="iwin_d2.data.coco"):
        DatasetCatalog.get(name)
    assert len(caplog.messages) == 2
    assert "annotation 1 " in caplog.messages[0] and "no iscrowd" in caplog.messages[0]
    assert "annotation 2 " in caplog.messages[1]
    assert caplog.messages[1].endswith("(9 more like this one)")


def test_classes_of_a_large_json_are_read_without_parsing_it(tmp_path, monkeypatch):
    json_file, _ = write_dataset(tmp_path)
    monkeypatch.setattr("iwin_d2.data.coco.read_coco_json", None)
    assert num_coco_classes(json_file) == 2


def test_classes_follow_from_the_json(tmp_path):
    json_file, _ = write_dataset(tmp_path, names=("nut", "fig", "date"))
    assert coco_class_names(json_file) == ["nut", "fig", "date"]
    assert num_coco_classes(json_file) == 3


def test_a_changed_json_is_read_again(tmp_path):
    json_file, _ = write_dataset(tmp_path)
    assert num_coco_classes(json_file) == 2
    write_dataset(tmp_path, names=("nut", "fig", "date"))
    assert num_coco_classes(json_file) == 3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{}", "no list of 'categories'"),
        ("[1]", "holds a list instead of an object"),
        ('[{"image_id": 1, "score": 0.5}]', "looks like a results file"),
        ('{"categories": []}', "no list of 'categories'"),
        ('{"categories": [{"id": 1}]}', "category number 1 needs the keys id and name"),
        ('{"categories": [{"id": 1, "name": "a"}, {"id": "2", "name": "b"}]}', "the id '2': ids"),
        ("nonsense", "not json"),
    ],
)
def test_classes_of_what_is_not_coco(tmp_path, text, sentence):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(DataError, match=sentence):
        num_coco_classes(str(path))


def test_classes_of_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        num_coco_classes(str(tmp_path / "gone.json"))


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (("nut",), "the latter lacks 'fig'"),
        (("nut", "fig", "date"), "the latter adds 'date'"),
        (("fig", "nut"), "number 1 is 'nut' in the former and 'fig' in the latter"),
    ],
)
def test_training_and_test_classes_must_agree(tmp_path, other, sentence):
    train_json, _ = write_dataset(tmp_path / "train")
    test_json, _ = write_dataset(tmp_path / "test", names=other)
    with pytest.raises(DataError, match=sentence):
        check_same_classes(train_json, test_json)


def test_other_classes_stop_the_loading(tmp_path, name):
    train_json, _ = write_dataset(tmp_path / "train")
    test_json, images = write_dataset(tmp_path / "test", names=("fig", "nut"))
    register_coco(name, test_json, images, same_classes_as=train_json)
    with pytest.raises(DataError, match="do not have the same categories"):
        DatasetCatalog.get(name)


def test_the_same_classes_pass(tmp_path, name):
    train_json, images = write_dataset(tmp_path)
    register_coco(name, train_json, images, same_classes_as=train_json)
    assert len(DatasetCatalog.get(name)) == 1


def test_a_lazy_config_can_say_it(tmp_path, name):
    json_file, images = write_dataset(tmp_path)
    cfg = L(SimpleNamespace)(
        names=L(register_coco)(name=name, json_file=json_file, image_root=images),
        num_classes=L(num_coco_classes)(json_file=json_file),
    )
    assert instantiate(cfg) == SimpleNamespace(names=name, num_classes=2)
    assert name in DatasetCatalog
