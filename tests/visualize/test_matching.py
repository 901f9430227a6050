"""The score of an image, against COCO's own matching."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from iwin_d2.engine.objects import Objects
from iwin_d2.visualize.matching import score_image


def objects(boxes, classes, scores=None):
    return Objects(list(classes), np.array(boxes, dtype=float).reshape(-1, 4), None, scores)


NONE = objects([], [])
SQUARE = [0, 0, 10, 10]


def scene(seed):
    """Objects, crowds and predictions near them, of three classes, many of them overlapping."""
    random = np.random.default_rng(seed)

    def boxes(count):
        corners = random.integers(0, 40, (count, 2))
        return np.concatenate([corners, corners + random.integers(8, 30, (count, 2))], 1)

    truth, crowds = boxes(6), boxes(2)
    near = np.concatenate([truth, truth, crowds])[random.permutation(14)[:9]]
    predicted = np.concatenate([near + random.integers(-3, 4, near.shape), boxes(3)])
    return (
        objects(truth, random.integers(0, 3, 6)),
        objects(predicted, random.integers(0, 3, 12), random.permutation(12) / 12),
        objects(crowds, random.integers(0, 3, 2)),
    )


def coco_counts(truth, predicted, crowds):
    """Objects found, missed, and predictions wrong, as COCOeval matches at an IoU of 0.5."""

    def rows(items, **more):
        return [
            {
                "image_id": 1,
                "category_id": int(c) + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                **more,
            }
            for c, (x0, y0, x1, y1) in zip(items.classes, items.boxes.tolist())
        ]

    annotations = rows(truth, iscrowd=0) + rows(crowds, iscrowd=1)
    coco = COCO()
    coco.dataset = {
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": n} for n in (1, 2, 3)],
        "annotations": [{**item, "id": n} for n, item in enumerate(annotations, start=1)],
        "info": {},
    }
    results = [{**row, "score": s} for row, s in zip(rows(predicted), predicted.scores)]
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.evaluate()
    found = missed = wrong = 0
    whole_range = len(evaluation.params.areaRng)
    for image in evaluation.evalImgs[::whole_range]:
        if image is None:  # nothing of this class
            continue
        real = ~image["gtIgnore"].astype(bool)
        found += int((image["gtMatches"][0][real] > 0).sum())
        missed += int((image["gtMatches"][0][real] == 0).sum())
        wrong += int(((image["dtMatches"][0] == 0) & ~image["dtIgnore"][0].astype(bool)).sum())
    return found, missed, wrong


def test_the_counts_are_those_of_cocos_matching():
    seen = np.zeros(4, dtype=int)
    for seed in range(40):
        parts = scene(seed)
        score = score_image(*parts)
        counts = (int(score.found.sum()), score.missed, score.wrong)
        assert counts == coco_counts(*parts), seed
        seen += (*counts, int(score.ignored.sum()))
    assert (seen > 10).all()  # the scenes have some of everything


def test_each_object_is_found_once_and_by_the_best_of_its_class():
    truth = objects([SQUARE], [1])
    predicted = objects([SQUARE, [0, 0, 10, 8], SQUARE], [1, 1, 2], [0.6, 0.9, 0.99])
    score = score_image(truth, predicted, NONE)
    assert score.right.tolist() == [False, True, False]
    assert (score.missed, score.wrong) == (0, 2)
    assert score.f1 == pytest.approx(2 / 4)
    assert str(score) == "F1 0.50: 1 found, 0 missed, 2 wrong"


def test_images_without_objects_or_predictions():
    nothing = objects([], [], [])
    assert score_image(NONE, nothing, NONE).f1 == 1
    assert score_image(objects([SQUARE], [0]), nothing, NONE).f1 == 0
    assert score_image(NONE, objects([SQUARE], [0], [0.9]), NONE).f1 == 0


def test_boxes_without_area_are_only_wrong():
    predicted = objects([[3, 3, 3, 3]], [0], [0.9])
    point = objects([[3, 3, 3, 3]], [0])
    score = score_image(point, predicted, point)
    assert (score.missed, score.wrong) == (1, 1)
