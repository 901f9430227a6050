"""Data sets by name, and COCO-format records."""

import json
import pickle

import numpy as np
import pycocotools.mask as mask_util
import pytest

from iwin_d2.d2.data import DatasetCatalog, Metadata, MetadataCatalog
from iwin_d2.d2.data.datasets import load_coco_json, register_coco_instances
from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.d2.structures import BoxMode
from iwin_d2.errors import DataError

native_only = pytest.mark.skipif(USE_DETECTRON2, reason="the errors of native")


@pytest.fixture
def name(request):
    name = f"catalog_{abs(hash(request.node.nodeid))}"
    yield name
    DatasetCatalog.pop(name, None)
    MetadataCatalog.pop(name, None)


def test_register_get_remove(name):
    calls = []
    DatasetCatalog.register(name, lambda: calls.append(1) or [{"a": 1}])
    assert not calls and name in DatasetCatalog and name in DatasetCatalog.list()
    assert DatasetCatalog.get(name) == [{"a": 1}]
    with pytest.raises(AssertionError, match="registered"):
        DatasetCatalog.register(name, list)
    DatasetCatalog.remove(name)
    assert name not in DatasetCatalog
    with pytest.raises(AssertionError):
        DatasetCatalog.register(name, [])


def test_an_unknown_name_is_a_key_error():
    with pytest.raises(KeyError):
        DatasetCatalog.get("no such data set at all")


@native_only
def test_an_unknown_name_names_the_nearest():
    with pytest.raises(DataError) as caught:
        DatasetCatalog.get("coco_2017_trian")
    assert "Did you mean coco_2017_train" in str(caught.value)
    assert not str(caught.value).startswith(("'", '"'))


def test_metadata_keep_their_values(name):
    metadata = MetadataCatalog.get(name)
    assert metadata.name == name and MetadataCatalog.get(name) is metadata
    assert metadata.set(classes=["a"], number=1) is metadata
    metadata.classes = ["a"]
    with pytest.raises(AssertionError):
        metadata.classes = ["b"]
    assert metadata.get("classes") == ["a"] and metadata.get("none", 3) == 3
    assert vars(metadata) == {"name": name, "classes": ["a"], "number": 1}
    with pytest.raises(AttributeError, match="number"):
        _ = metadata.nmber
    MetadataCatalog.remove(name)
    assert name not in MetadataCatalog.list()


def test_metadata_can_be_pickled():
    assert pickle.loads(pickle.dumps(Metadata(name="x", a=1))).a == 1


def test_coco_names_are_registered():
    assert {"coco_2017_train", "coco_2017_val", "coco_2017_val_100"} <= set(DatasetCatalog.list())
    metadata = MetadataCatalog.get("coco_2017_val")
    assert metadata.evaluator_type == "coco"
    assert metadata.json_file.endswith("annotations/instances_val2017.json")
    assert metadata.image_root.endswith("coco/val2017")


MASK = np.zeros((20, 30), dtype=np.uint8)
MASK[3:9, 5:11] = 1


def uncompressed():
    flat = MASK.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    return {"size": [20, 30], "counts": np.diff([0, *edges, flat.size]).tolist()}


def annotation(number, image_id, category_id, segmentation, **more):
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [5, 3, 6, 6],
        "area": 36,
        "iscrowd": 0,
        "segmentation": segmentation,
        **more,
    }


SQUARE = [5, 3, 11, 3, 11, 9, 5, 9]


def write_json(folder, annotations):
    content = {
        "images": [
            {"id": 7, "file_name": "b.jpg", "height": 20, "width": 30},
            {"id": 3, "file_name": "sub/a.jpg", "height": 20, "width": 30},
        ],
        "categories": [{"id": 9, "name": "nine"}, {"id": 4, "name": "four"}],
        "annotations": annotations,
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_records(tmp_path, name, capsys):
    path = write_json(
        tmp_path,
        [
            annotation(1, 7, 9, [SQUARE, [1, 2, 3, 4]], score=0.5),
            annotation(2, 7, 4, uncompressed(), iscrowd=1),
            annotation(3, 7, 4, [[1, 2, 3, 4]]),
            annotation(4, 3, 4, []),
        ],
    )
    register_coco_instances(name, {"more": 1}, path, "root")
    assert MetadataCatalog.get(name).more == 1
    records = DatasetCatalog.get(name)
    assert MetadataCatalog.get(name).thing_classes == ["four", "nine"]
    assert MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id == {4: 0, 9: 1}
    assert [r["image_id"] for r in records] == [3, 7]
    first, second = records
    assert first["file_name"] == "root/sub/a.jpg"
    assert (first["height"], first["width"]) == (20, 30)
    assert "segmentation" not in first["annotations"][0]
    polygon, rle = second["annotations"]  # the third has no polygon of three points
    assert polygon == {
        "iscrowd": 0,
        "bbox": [5, 3, 6, 6],
        "category_id": 1,
        "segmentation": [SQUARE],
        "bbox_mode": BoxMode.XYWH_ABS,
    }
    assert rle["iscrowd"] == 1 and rle["category_id"] == 0
    assert np.array_equal(mask_util.decode(rle["segmentation"]), MASK)
    assert capsys.readouterr().out == ""
    DatasetCatalog.get(name)  # a second time the metadata are the same


def test_ids_stay_without_a_name(tmp_path):
    path = write_json(tmp_path, [annotation(1, 7, 9, [SQUARE])])
    records = load_coco_json(path, "root")
    assert records[1]["annotations"][0]["category_id"] == 9


@native_only
@pytest.mark.parametrize(
    "change, message", [({"bbox": []}, "no bbox"), ({"category_id": 5}, r"category id 5.*\[4, 9\]")]
)
def test_broken_annotations_are_named(tmp_path, name, change, message):
    broken = {**annotation(31, 7, 9, [SQUARE]), **change}
    with pytest.raises(DataError, match=rf"instances\.json: annotation 31 of image 7 .*{message}"):
        load_coco_json(write_json(tmp_path, [broken]), "root", name)
