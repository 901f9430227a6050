"""Evaluation of classifiers against a slow, obvious count; its files."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from iwin_d2.data.classification.evaluator import CAPTIONS, ClassificationEvaluator
from iwin_d2.data.classification.metrics import MOST_CONFUSED, ClassificationMetrics
from iwin_d2.data.confusion_picture import draw_confusion
from iwin_d2.errors import DataError


def items(labels):
    return [{"file_name": f"{n:04}.png", "label": label} for n, label in enumerate(labels)]


def evaluate(evaluator, scores, labels, batch=7):
    records = items(labels)
    evaluator.reset()
    for start in range(0, len(records), batch):
        part = slice(start, start + batch)
        evaluator.process(records[part], [{"scores": row} for row in scores[part]])
    return evaluator.evaluate()["classification"]


def make(num_classes, output=None):
    names = [f"class {number}" for number in range(num_classes)]
    return ClassificationEvaluator(names, output_dir=output and str(output), distributed=False)


def counted(scores, labels, num_classes):
    """The same by hand."""
    ranks = []
    for row, label in zip(scores.tolist(), labels):
        order = sorted(range(num_classes), key=lambda c: (-row[c], c))
        ranks.append(order.index(label))
    accuracies = []
    for number in range(num_classes):
        own = [rank == 0 for rank, label in zip(ranks, labels) if label == number]
        if own:
            accuracies.append(sum(own) / len(own))
    count = len(labels)
    return {
        "top1": 100 * sum(rank < 1 for rank in ranks) / count,
        "top5": 100 * sum(rank < 5 for rank in ranks) / count,
        "mean_class_accuracy": 100 * sum(accuracies) / len(accuracies),
    }


@pytest.mark.parametrize("num_classes", [2, 4, 5, 6, 40])
@pytest.mark.parametrize("levels", [None, 3], ids=["all different", "with ties"])
def test_results_are_those_of_a_count_by_hand(num_classes, levels):
    generator = torch.Generator().manual_seed(num_classes)
    scores = torch.rand(61, num_classes, generator=generator)
    if levels:
        scores = (scores * levels).floor() / levels
    labels = torch.randint(0, max(2, num_classes - 1), (61,), generator=generator).tolist()
    wanted = counted(scores, labels, num_classes)
    if num_classes <= 5:
        del wanted["top5"]
    evaluator = make(num_classes)
    assert evaluate(evaluator, scores, labels) == pytest.approx(wanted)
    for batch in (1, 61):
        assert evaluate(evaluator, scores, labels, batch) == pytest.approx(wanted)


def test_of_equal_scores_the_first_class_counts():
    scores = torch.full((3, 300), 0.5)
    found = evaluate(make(300), scores, [0, 4, 5])
    assert found["top1"] == pytest.approx(100 / 3) and found["top5"] == pytest.approx(200 / 3)


def test_scores_of_half_precision_are_taken():
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2]], dtype=torch.bfloat16)
    assert evaluate(make(2), scores, [1, 1])["top1"] == 50


def test_files_say_what_was_found(tmp_path):
    scores = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.0, 0.1, 0.9]])
    found = evaluate(make(3, tmp_path), scores, [0, 2, 2])
    content = json.loads((tmp_path / "results.json").read_text())
    assert content == {"items": 3, "classification": found}
    with open(tmp_path / "predictions.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[2] == [
        *("0001.png", "class 2", "class 1", "0.500000", "0"),
        *("class 1", "class 2", "class 0"),
    ]
    with open(tmp_path / "per_class.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert [row[2:] for row in rows] == [["1", "100.000"], ["0", ""], ["2", "50.000"]]
    with open(tmp_path / "confusion.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert [row[1:] for row in rows] == [["1", "0", "0"], ["0", "0", "0"], ["0", "1", "1"]]
    with Image.open(tmp_path / "confusion.png") as picture:
        assert picture.mode == "RGB" and min(picture.size) > 200
    assert {path.name for path in tmp_path.iterdir()} == {
        *("results.json", "predictions.csv", "per_class.csv", "confusion.csv", "confusion.png")
    }


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range_are_named(label):
    with pytest.raises(DataError, match=rf"0001\.png has the label {label}, .* 3 classes, 0 to 2"):
        evaluate(make(3), torch.rand(2, 3), [0, label])


def test_another_number_of_scores_is_refused():
    with pytest.raises(DataError, match="The model has 4 classes, the test set 3"):
        evaluate(make(3), torch.rand(2, 4), [0, 1])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_named(value):
    scores = torch.rand(3, 3)
    scores[1, 2] = value
    with pytest.raises(FloatingPointError, match=r"0001\.png"):
        evaluate(make(3), scores, [0, 1, 2])


def test_nothing_is_no_result():
    evaluator = make(3)
    evaluator.reset()
    with pytest.raises(DataError, match="The test set is empty"):
        evaluator.evaluate()


def test_metrics_of_nothing_are_nan():
    metrics = ClassificationMetrics.of(np.zeros(0, int), np.zeros((0, 5), int), 5)
    assert all(map(math.isnan, (metrics.top1, metrics.top5, metrics.mean_class_accuracy)))
    assert np.isnan(metrics.class_accuracy).all() and metrics.confusion.sum() == 0


def test_of_very_many_classes_there_is_no_matrix(tmp_path):
    count = MOST_CONFUSED + 1
    scores = torch.zeros(4, count)
    scores[range(4), [5, 6, 7, count - 1]] = 1
    found = evaluate(make(count, tmp_path), scores, [5, 6, 8, count - 1])
    assert found["top1"] == 75
    assert found["mean_class_accuracy"] == 75
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"results.json", "predictions.csv", "per_class.csv"}


@pytest.mark.parametrize("classes", [4, 60, 400])
def test_the_picture_shows_the_classes_with_most_mistakes(classes):
    names = [f"class {number}" for number in range(classes)]
    right = np.diag(np.full(classes, 50))
    confusion = right.copy()
    confusion[0, classes - 1] += 50  # of many classes, the first and the last are drawn
    picture = np.asarray(draw_confusion(confusion, names, CAPTIONS, "a heading"))
    clean = np.asarray(draw_confusion(right, names, CAPTIONS, "a heading"))

    def red(pixels):
        """Cells of mistakes: of much more red than green."""
        return int(((pixels[..., 0] > 150) & (pixels[..., 1].astype(int) < 110)).sum())

    assert picture.shape[1] <= 2800
    assert red(clean) == 0
    assert red(picture) > 50
