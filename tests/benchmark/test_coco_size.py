"""The data set that the loading benchmark generates, and its measurement."""

import json

import pytest

from iwin_d2.benchmark.coco_size import measure_loading, write_coco_size_dataset
from iwin_d2.data.coco_check import check_coco


def test_the_generated_data_set_is_a_good_one(tmp_path):
    json_file, images = write_coco_size_dataset(tmp_path / "set", 300, 2000)
    assert check_coco(json_file, images) == []
    data = json.loads(json_file.read_text())
    assert (len(data["images"]), len(data["annotations"])) == (300, 2000)
    objects = [a["segmentation"] for a in data["annotations"] if not a["iscrowd"]]
    points = [len(polygon) / 2 for polygons in objects for polygon in polygons]
    assert 0 < 2000 - len(objects) < 60
    assert 18 < sum(points) / len(points) < 32


@pytest.mark.slow
def test_the_measurement(tmp_path):
    found = measure_loading(*write_coco_size_dataset(tmp_path / "set", 40, 200), 2, batches=10)
    assert found["seconds"] > 0
    assert 50 < found["imported"] <= found["peak"]
    assert found["together"] < 2 * found["peak"]  # two workers share what the process has
