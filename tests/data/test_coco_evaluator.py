"""Evaluation against a json without area, iscrowd or masks is that of the complete json."""

import copy
import json
import uuid

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch

from iwin_d2.d2.data import MetadataCatalog
from iwin_d2.d2.evaluation import COCOEvaluator
from iwin_d2.d2.structures import Boxes, Instances
from iwin_d2.data.coco_evaluator import CompletingCOCOEvaluator

SIZE = (100, 120)
BOXES = np.array([[5, 5, 30, 25], [40, 10, 110, 60], [20, 50, 60, 98.0], [80, 70, 95, 90]])


def polygon(box) -> list[float]:
    x0, y0, x1, y1 = map(float, box)
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def truth() -> dict:
    annotations = []
    for number, box in enumerate(BOXES, start=1):
        rle = mask_util.merge(mask_util.frPyObjects([polygon(box)], *SIZE))
        x0, y0, x1, y1 = map(float, box)
        annotations.append(
            {
                "id": number,
                "image_id": 1 + number % 2,
                "category_id": 1 + number // 3,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "segmentation": [polygon(box)],
                "area": float(mask_util.area(rle)),
                "iscrowd": 0,
            }
        )
    images = [
        {"id": i, "file_name": f"{i}.jpg", "height": SIZE[0], "width": SIZE[1]} for i in (1, 2)
    ]
    categories = [{"id": i, "name": f"class {i}"} for i in (1, 2)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def predictions(image_id: int) -> Instances:
    numbers = [i for i in range(len(BOXES)) if 1 + (i + 1) % 2 == image_id]
    boxes = BOXES[numbers] + 2  # hit at some thresholds of overlap, missed at others
    instances = Instances(SIZE)
    instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
    instances.scores = torch.linspace(0.9, 0.5, len(numbers))
    instances.pred_classes = torch.tensor([(i + 1) // 3 for i in numbers])
    masks = np.zeros((len(numbers), *SIZE), dtype=bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int)):
        mask[y0:y1, x0:x1] = True
    instances.pred_masks = torch.from_numpy(masks)
    return instances


def evaluate(evaluator_class, folder, data: dict, **options) -> dict:
    path = folder / f"{uuid.uuid4().hex}.json"
    path.write_text(json.dumps(data))
    MetadataCatalog.get(path.name).set(
        json_file=str(path),
        thing_classes=["class 1", "class 2"],
        thing_dataset_id_to_contiguous_id={1: 0, 2: 1},
    )
    evaluator = evaluator_class(path.name, distributed=False, **options)
    evaluator.reset()
    for image_id in (1, 2):
        evaluator.process([{"image_id": image_id}], [{"instances": predictions(image_id)}])
    return evaluator.evaluate()


@pytest.fixture
def expected(tmp_path) -> dict:
    results = evaluate(COCOEvaluator, tmp_path, truth())
    assert 20 < results["bbox"]["AP"] < 95  # neither all hit nor all missed
    assert results["bbox"]["APs"] != results["bbox"]["APm"]
    return results


def check_equal(results: dict, expected: dict) -> None:
    assert results.keys() == expected.keys()
    for task, metrics in expected.items():
        assert results[task] == pytest.approx(metrics, nan_ok=True)


def test_a_complete_json_is_evaluated_as_ever(tmp_path, expected):
    check_equal(evaluate(CompletingCOCOEvaluator, tmp_path, truth()), expected)


def test_what_is_missing_is_filled_in(tmp_path, expected):
    data = truth()
    del data["info"]
    for annotation, area in zip(data["annotations"], (None, -1, "x", float("nan"))):
        annotation["area"] = area
        del annotation["iscrowd"]
    del data["annotations"][0]["area"]
    check_equal(evaluate(CompletingCOCOEvaluator, tmp_path, data), expected)


def test_the_id_0_counts_like_any_other(tmp_path, expected):
    data = truth()
    for annotation in data["annotations"]:
        annotation["id"] -= 1
    check_equal(evaluate(CompletingCOCOEvaluator, tmp_path, data), expected)


def test_without_masks_the_boxes_are_evaluated(tmp_path, expected, caplog):
    data = truth()
    for annotation in data["annotations"]:
        del annotation["segmentation"], annotation["area"], annotation["iscrowd"]
    with caplog.at_level("WARNING", logger="iwin_d2.data.coco_evaluator"):
        results = evaluate(CompletingCOCOEvaluator, tmp_path, data)
    assert list(results) == ["bbox"]
    assert results["bbox"]["AP"] == pytest.approx(expected["bbox"]["AP"])
    assert "4 of 4 annotations have no mask" in caplog.text


def test_an_area_of_a_box_without_mask(tmp_path):
    data = truth()
    for annotation in data["annotations"]:
        annotation["segmentation"] = []
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    bare = copy.deepcopy(data)
    for annotation in bare["annotations"]:
        del annotation["area"]
    whole = evaluate(COCOEvaluator, tmp_path, data, tasks=("bbox",))
    check_equal(evaluate(CompletingCOCOEvaluator, tmp_path, bare), whole)


def test_the_arguments_are_those_of_the_framework(tmp_path):
    """The training tool looks for output_dir in the signature."""
    evaluate(CompletingCOCOEvaluator, tmp_path, truth(), output_dir=str(tmp_path / "out"))
    assert (tmp_path / "out" / "coco_instances_results.json").exists()
