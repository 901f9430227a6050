"""Our records of a COCO json are those of the framework's own load_coco_json."""

import copy
import json
import uuid

import numpy as np
import pycocotools.mask as mask_util
import pytest

from iwin_d2.d2.data import DatasetCatalog, DatasetFromList, MetadataCatalog
from iwin_d2.d2.data.datasets import load_coco_json
from iwin_d2.data.coco import register_coco
from iwin_d2.data.coco_records import coco_records

MASK = np.zeros((20, 30), dtype=np.uint8)
MASK[3:9, 5:11] = 1
COMPRESSED = mask_util.encode(np.asfortranarray(MASK))
COMPRESSED["counts"] = COMPRESSED["counts"].decode()


def annotation(number, image_id, **change) -> dict:
    polygon = [2, 3, 12.25, 3, 12.25, 11.5]
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 40,
        "bbox": [2, 3, 10.25, 8.5],
        "area": 43,
        "iscrowd": 0,
        "segmentation": [polygon],
        **change,
    }


def without(record, *keys) -> dict:
    return {key: value for key, value in record.items() if key not in keys}


DATA = {
    # Ids with gaps, from 0, in no order; images without annotations; annotations of images mixed.
    "categories": [{"id": 40, "name": "fig"}, {"id": 0, "name": "nut"}, {"id": 7, "name": "oak"}],
    "images": [
        {"id": 9, "file_name": "sub/a.png", "width": 30, "height": 20, "license": 3},
        {"id": 0, "file_name": "b.png", "width": 30, "height": 20},
        {"id": 4, "file_name": "/c.png", "width": 30, "height": 20},
    ],
    "annotations": [
        annotation(5, 9),
        annotation(3, 0, category_id=0, segmentation=[[1, 2, 3, 4, 5, 6], [1, 2, 3, 2, 3, 4.5]]),
        annotation(1, 9, iscrowd=1, segmentation={"size": [20, 30], "counts": [40, 60, 500]}),
        annotation(2, 9, segmentation=COMPRESSED, category_id=7),
        without(annotation(4, 0), "iscrowd", "area"),
        without(annotation(6, 0), "segmentation"),
        annotation(7, 0, segmentation=[]),
    ],
}


@pytest.fixture
def name():
    name = f"records_{uuid.uuid4().hex}"
    yield name
    MetadataCatalog.pop(name)


def test_records_are_those_of_the_framework(tmp_path, name):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(DATA))
    theirs = load_coco_json(str(path), "root", name)
    ours, classes, numbers = coco_records(copy.deepcopy(DATA), "root")
    assert ours == theirs
    assert [[type(a["bbox_mode"]) for a in r["annotations"]] for r in ours] == [
        [type(a["bbox_mode"]) for a in r["annotations"]] for r in theirs
    ]
    assert list(MetadataCatalog.get(name).thing_classes) == classes == ["nut", "oak", "fig"]
    assert MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id == numbers
    assert numbers == {0: 0, 7: 1, 40: 2}


def test_a_registered_data_set_gives_them_too(tmp_path, name):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(DATA))
    register_coco(name, str(path), "root", check_files=None)
    records = DatasetCatalog.get(name)
    assert records == coco_records(copy.deepcopy(DATA), "root")[0]
    serialised = DatasetFromList(records)
    assert [serialised[i] for i in range(len(serialised))] == records
    assert MetadataCatalog.get(name).thing_classes == ["nut", "oak", "fig"]


def test_the_json_is_taken_apart():
    data = copy.deepcopy(DATA)
    coco_records(data, "root")
    assert "annotations" not in data and "images" not in data


def test_images_alone():
    data = {key: copy.deepcopy(DATA[key]) for key in ("images", "categories")}
    records, _, _ = coco_records(data, "root")
    assert [record["annotations"] for record in records] == [[], [], []]
