"""COCOEvaluator against pycocotools called directly, and the corners of the format."""

import contextlib
import io
import itertools
import json
import math
import uuid

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_util
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from iwin_d2.d2.data import MetadataCatalog
from iwin_d2.d2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    flatten_results_dict,
    inference_on_dataset,
    instances_to_coco_json,
    print_csv_format,
)
from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.d2.structures import Boxes, Instances
from iwin_d2.errors import DataError

SIZE = (96, 128)
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
small_limits = pytest.mark.skipif(
    USE_DETECTRON2, reason="Detectron2 keeps COCOeval's limit of 10 beside a smaller one"
)


def ellipse(box):
    x0, y0, x1, y1 = box
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]]
    return (
        ((xs - (x0 + x1) / 2) / ((x1 - x0) / 2)) ** 2
        + ((ys - (y0 + y1) / 2) / ((y1 - y0) / 2)) ** 2
    ) <= 1


def encode(mask):
    rle = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {**rle, "counts": rle["counts"].decode()}


def random_box(rng):
    w, h = rng.uniform(8, 50, 2)
    x, y = rng.uniform(0, SIZE[1] - w), rng.uniform(0, SIZE[0] - h)
    return np.array([x, y, x + w, y + h])


class Scene:
    """Ground truth on disk, registered, with jittered predictions of it."""

    def __init__(self, folder, images=6, first_image=0, first_annotation=1, categories=(7, 3, 90)):
        rng = np.random.default_rng(0)
        self.categories = sorted(categories)
        self.names = [f"class{c}" for c in self.categories]
        annotations, self.predictions = [], {}
        numbers = itertools.count(first_annotation)
        for image_id in range(first_image, first_image + images):
            found = []
            for _ in range(rng.integers(1, 5)):
                box, label = random_box(rng), int(rng.integers(len(categories)))
                annotations.append(self.annotation(next(numbers), image_id, box, label))
                jittered = box + rng.normal(0, 2.0, 4)
                found.append((jittered, rng.uniform(0.3, 1), label))
            found.append((random_box(rng), rng.uniform(0, 0.6), 0))  # a false positive
            self.predictions[image_id] = found
        self.json_file = folder / "instances.json"
        dataset = {
            "images": [
                {"id": i, "file_name": f"{i}.jpg", "height": SIZE[0], "width": SIZE[1]}
                for i in self.predictions
            ],
            "annotations": annotations,
            "categories": [{"id": c, "name": f"class{c}"} for c in categories],
        }
        self.json_file.write_text(json.dumps(dataset))
        self.name = f"test_coco_evaluation_{uuid.uuid4().hex}"
        MetadataCatalog.get(self.name).set(
            json_file=str(self.json_file),
            thing_classes=self.names,
            thing_dataset_id_to_contiguous_id={c: i for i, c in enumerate(self.categories)},
        )

    def annotation(self, number, image_id, box, label):
        mask = ellipse(box)
        x0, y0, x1, y1 = map(float, box)
        return {
            "id": number,
            "image_id": image_id,
            "category_id": self.categories[label],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": int(mask.sum()),
            "iscrowd": 0,
            "segmentation": encode(mask),
        }

    def instances(self, image_id, masks=True):
        boxes, scores, classes = zip(*self.predictions[image_id])
        instances = Instances(SIZE)
        instances.pred_boxes = Boxes(torch.tensor(np.array(boxes), dtype=torch.float32))
        instances.scores = torch.tensor(scores, dtype=torch.float32)
        instances.pred_classes = torch.tensor(classes)
        if masks:
            instances.pred_masks = torch.from_numpy(np.stack([ellipse(box) for box in boxes]))
        return instances

    def feed(self, evaluator, masks=True, ids=None):
        evaluator.reset()
        for image_id in ids or self.predictions:
            inputs = [{"image_id": image_id, "height": SIZE[0], "width": SIZE[1]}]
            evaluator.process(inputs, [{"instances": self.instances(image_id, masks)}])
        return evaluator

    def expected(self, task):
        """The twelve numbers of COCOeval, called directly on records written out by hand."""
        records = []
        for image_id, found in self.predictions.items():
            for box, score, label in found:
                x0, y0, x1, y1 = map(float, np.float32(box))
                record = {
                    "image_id": image_id,
                    "category_id": self.categories[label],
                    "score": float(np.float32(score)),
                }
                if task == "bbox":
                    record["bbox"] = [x0, y0, x1 - x0, y1 - y0]
                else:
                    record["segmentation"] = encode(ellipse(box))
                records.append(record)
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(self.json_file))
            truth.dataset["info"] = {}
            evaluation = COCOeval(truth, truth.loadRes(records), task)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation


def test_boxes_and_masks_are_what_pycocotools_says(tmp_path):
    scene = Scene(tmp_path, first_image=0)
    results = scene.feed(COCOEvaluator(scene.name)).evaluate()
    assert list(results) == ["bbox", "segm"]
    for task in results:
        evaluation = scene.expected(task)
        for name, value in zip(METRICS, evaluation.stats):
            if value < 0:
                assert math.isnan(results[task][name])
            else:
                assert results[task][name] == pytest.approx(100 * value, abs=1e-6)
        precision = evaluation.eval["precision"]
        for index, name in enumerate(scene.names):
            expected = precision[:, :, index, 0, -1].mean() * 100
            assert results[task][f"AP-{name}"] == pytest.approx(expected)
    assert 5 < results["bbox"]["AP"] < 95


def test_boxes_alone_and_a_chosen_task(tmp_path):
    scene = Scene(tmp_path)
    assert list(scene.feed(COCOEvaluator(scene.name), masks=False).evaluate()) == ["bbox"]
    assert list(scene.feed(COCOEvaluator(scene.name, tasks=("segm",))).evaluate()) == ["segm"]


@pytest.mark.skipif(USE_DETECTRON2, reason="Detectron2 refuses or miscounts annotation id 0")
@pytest.mark.parametrize("repeat", [False, True])
def test_annotation_ids_from_zero_or_repeated_change_nothing(tmp_path, repeat):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    normal, zero = Scene(tmp_path / "a"), Scene(tmp_path / "b", first_annotation=0)
    if repeat:
        dataset = json.loads(zero.json_file.read_text())
        for annotation in dataset["annotations"]:
            annotation["id"] = 5
        zero.json_file.write_text(json.dumps(dataset))
    results = [scene.feed(COCOEvaluator(scene.name)).evaluate() for scene in (normal, zero)]
    assert results[0]["bbox"] == pytest.approx(results[1]["bbox"], nan_ok=True)


def test_results_file_uses_the_data_sets_own_ids(tmp_path):
    scene = Scene(tmp_path)
    scene.feed(COCOEvaluator(scene.name, output_dir=str(tmp_path / "out"))).evaluate()
    records = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert len(records) == sum(map(len, scene.predictions.values()))
    assert {record["category_id"] for record in records} == {3, 7, 90}
    x0, y0, x1, y1 = scene.predictions[0][0][0]
    assert records[0]["bbox"] == pytest.approx([x0, y0, x1 - x0, y1 - y0], abs=1e-4)
    assert not list((tmp_path / "out").glob("*.tmp"))


@pytest.mark.parametrize("limit", [pytest.param(1, marks=small_limits), 11])
def test_a_limit_of_detections(tmp_path, limit):
    scene = Scene(tmp_path, images=8, categories=(7,))  # the limit holds for each class
    for found in scene.predictions.values():
        # False positives of the highest scores leave room for a single one of the others.
        found.extend((random_box(np.random.default_rng(i)), 1.0, 0) for i in range(limit - 1))
    one = scene.feed(COCOEvaluator(scene.name, max_dets_per_image=limit)).evaluate()["bbox"]
    many = scene.feed(COCOEvaluator(scene.name, max_dets_per_image=200)).evaluate()["bbox"]
    all_of_them = scene.feed(COCOEvaluator(scene.name)).evaluate()["bbox"]
    assert one["AP"] < many["AP"]
    assert many == pytest.approx(all_of_them, nan_ok=True)


def test_some_images_only(tmp_path):
    scene = Scene(tmp_path)
    on_all = scene.feed(COCOEvaluator(scene.name), ids=[1, 2]).evaluate()
    on_those = scene.feed(COCOEvaluator(scene.name), ids=[1, 2]).evaluate(img_ids=[1, 2])
    assert on_all["bbox"]["AP"] < on_those["bbox"]["AP"]


@pytest.mark.skipif(USE_DETECTRON2, reason="Detectron2 translates its records' classes in place")
def test_evaluating_again_gives_the_same(tmp_path):
    scene = Scene(tmp_path)
    evaluator = scene.feed(COCOEvaluator(scene.name))
    first, second = evaluator.evaluate(), evaluator.evaluate()
    assert first.keys() == second.keys() == {"bbox", "segm"}
    for task in first:
        assert first[task] == pytest.approx(second[task], nan_ok=True)


def test_no_predictions_give_nan(tmp_path):
    scene = Scene(tmp_path)
    evaluator = COCOEvaluator(scene.name)
    evaluator.reset()
    empty = Instances(SIZE)
    empty.pred_boxes = Boxes(torch.zeros(0, 4))
    empty.scores, empty.pred_classes = torch.zeros(0), torch.zeros(0, dtype=torch.long)
    evaluator.process([{"image_id": 0}], [{"instances": empty}])
    results = evaluator.evaluate()
    assert list(results) == ["bbox"] and math.isnan(results["bbox"]["AP"])
    evaluator.reset()
    assert evaluator.evaluate() == {}


@pytest.mark.skipif(USE_DETECTRON2, reason="Detectron2 has errors of its own")
def test_bad_data_sets_and_classes_are_said(tmp_path):
    scene = Scene(tmp_path)
    with pytest.raises(DataError, match="has no COCO json"):
        COCOEvaluator("a_name_that_nobody_registered")
    scene.predictions[0][0] = (*scene.predictions[0][0][:2], 3)
    with pytest.raises(DataError, match=r"predicts class 3.*has 3 classes"):
        scene.feed(COCOEvaluator(scene.name)).evaluate()
    scene.json_file.write_text("{")
    with pytest.raises(DataError, match=r"instances\.json is not a COCO json"):
        COCOEvaluator(scene.name)
    scene.json_file.unlink()
    with pytest.raises(DataError, match=r"Cannot read .*instances\.json"):
        COCOEvaluator(scene.name)


def test_records_of_one_image():
    instances = Instances(SIZE)
    instances.pred_boxes = Boxes(torch.tensor([[1.0, 2.0, 11.0, 22.0]]))
    instances.scores, instances.pred_classes = torch.tensor([0.5]), torch.tensor([4])
    instances.pred_masks = torch.zeros(1, *SIZE, dtype=torch.bool)
    instances.pred_masks[0, 2:22, 1:11] = True
    (record,) = instances_to_coco_json(instances, 42)
    mask = mask_util.decode(record.pop("segmentation"))
    np.testing.assert_array_equal(mask, instances.pred_masks[0].numpy())
    expected = {"image_id": 42, "category_id": 4, "bbox": [1.0, 2.0, 10.0, 20.0], "score": 0.5}
    assert record == expected


class Counter(DatasetEvaluator):
    def __init__(self, key):
        self.key = key

    def reset(self):
        self.sum = 0

    def process(self, inputs, outputs):
        self.sum += sum(outputs)

    def evaluate(self):
        return {self.key: {"sum": self.sum}}


class Adder(torch.nn.Module):
    def forward(self, inputs):
        assert not self.training and not torch.is_grad_enabled()
        return [i + 1 for i in inputs]


def test_inference_feeds_evaluators_and_puts_the_mode_back():
    model = Adder().train()
    loader = [[1, 2], [3]]
    results = inference_on_dataset(model, loader, [Counter("a"), Counter("b")])
    assert results == {"a": {"sum": 9}, "b": {"sum": 9}}
    assert model.training
    assert inference_on_dataset(model, loader, None) == {}


def test_evaluators_of_the_same_name_clash():
    both = DatasetEvaluators([Counter("a"), Counter("a")])
    both.reset()
    with pytest.raises(AssertionError):
        both.evaluate()


def test_flat_names_and_the_copy_paste_line(caplog):
    import logging

    results = {"bbox": {"AP": 12.34567, "AP50": 50.0, "AP-cat": 1.0}}
    assert flatten_results_dict(results)["bbox/AP-cat"] == 1.0
    assert flatten_results_dict({"a": {"b": {"c": 1}}}) == {"a/b/c": 1}
    logger = logging.getLogger(print_csv_format.__module__)
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    try:
        print_csv_format(results)
    finally:
        logger.removeHandler(caplog.handler)
    assert "copypaste: Task: bbox" in caplog.text
    assert "copypaste: AP,AP50\n" in caplog.text
    assert "copypaste: 12.3457,50.0000\n" in caplog.text
