"""Metrics of segmentation against slow loops over pixels."""

import math

import numpy as np
import pytest

from iwin_d2.data.confusion_picture import draw_confusion
from iwin_d2.data.semantic_segmentation.evaluation_files import CAPTIONS
from iwin_d2.data.semantic_segmentation.metrics import SegmentationMetrics, count_confusions


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def by_loops(pairs, num_classes, ignore_value):
    """All results in percent, from the definitions: sets of pixels, class by class."""
    truth, predicted = [], []
    for true, found in pairs:
        for row in range(true.shape[0]):
            for column in range(true.shape[1]):
                if true[row, column] != ignore_value:
                    truth.append(int(true[row, column]))
                    predicted.append(int(found[row, column]))
    iou, accuracy, share = {}, {}, {}
    for number in range(num_classes):
        of_truth = {i for i, value in enumerate(truth) if value == number}
        of_prediction = {i for i, value in enumerate(predicted) if value == number}
        both, either = of_truth & of_prediction, of_truth | of_prediction
        iou[number] = len(both) / len(either) if either else math.nan
        accuracy[number] = len(both) / len(of_truth) if of_truth else math.nan
        share[number] = len(of_truth) / len(truth) if truth else math.nan
    hits = [t == p for t, p in zip(truth, predicted)]
    results = {
        "mIoU": mean(value for value in iou.values() if not math.isnan(value)),
        "fwIoU": sum(iou[n] * share[n] for n in iou if share[n] > 0) if truth else math.nan,
        "mACC": mean(value for value in accuracy.values() if not math.isnan(value)),
        "pACC": mean(hits),
        **{f"IoU-{n}": value for n, value in iou.items()},
        **{f"ACC-{n}": value for n, value in accuracy.items()},
    }
    return {name: 100 * value for name, value in results.items()}


def evaluate(pairs, num_classes, ignore_value):
    confusion = sum(count_confusions(*pair, num_classes, ignore_value) for pair in pairs)
    return SegmentationMetrics.of(confusion).in_percent([str(n) for n in range(num_classes)])


def random_pairs(rng, num_classes, ignore_value, absent=(), only_predicted=(), dtype=np.uint8):
    """Three images whose predictions are right in about half of the pixels."""
    pairs = []
    for size in ((13, 17), (9, 21), (1, 5)):
        truth = rng.integers(0, num_classes, size)
        truth[np.isin(truth, [*absent, *only_predicted])] = 0
        guessed = rng.integers(0, num_classes, size)
        guessed[np.isin(guessed, absent)] = 0
        predicted = np.where(rng.random(size) < 0.5, truth, guessed)
        truth[rng.random(size) < 0.2] = ignore_value
        pairs.append((truth.astype(dtype), predicted.astype(np.int32)))
    return pairs


@pytest.mark.parametrize(
    ("num_classes", "ignore_value", "options"),
    [
        (4, 255, {}),
        (4, 4, {}),
        (1, 255, {}),
        (19, 255, {"absent": (3, 7)}),
        (19, 255, {"only_predicted": (5,), "absent": (0,)}),
        (300, 65535, {"dtype": np.uint16}),
    ],
)
def test_metrics_are_those_of_loops_over_pixels(num_classes, ignore_value, options):
    rng = np.random.default_rng(num_classes)
    if "absent" in options and 0 in options["absent"]:
        options = {**options, "absent": (2,)}
    pairs = random_pairs(rng, num_classes, ignore_value, **options)
    found = evaluate(pairs, num_classes, ignore_value)
    expected = by_loops(pairs, num_classes, ignore_value)
    assert found == pytest.approx(expected, nan_ok=True, rel=1e-12)
    assert 0 < found["mIoU"] <= 100
    nan = {name for name, value in found.items() if math.isnan(value)}
    absent, only = options.get("absent", ()), options.get("only_predicted", ())
    if num_classes < 100:
        wanted = {f"IoU-{n}" for n in absent} | {f"ACC-{n}" for n in (*absent, *only)}
        assert nan == wanted
    for number in only:
        assert found[f"IoU-{number}"] == 0


def test_what_is_ignored_may_be_predicted_as_anything():
    truth = np.array([[0, 0, 1, 9]], dtype=np.uint8)
    for number in range(3):
        counts = count_confusions(truth, np.array([[0, 1, 1, number]]), 3, 9)
        assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
        assert counts.dtype == np.int64


def test_without_a_pixel_that_counts_nothing_can_be_measured():
    truth = np.full((3, 4), 255, dtype=np.uint8)
    counts = count_confusions(truth, np.zeros((3, 4), dtype=np.int32), 2, 255)
    assert not counts.any()
    assert all(map(math.isnan, SegmentationMetrics.of(counts).in_percent("ab").values()))
    assert not count_confusions(truth[:0], truth[:0], 2, 255).any()


@pytest.mark.parametrize(("true", "predicted"), [(2, 0), (0, 2), (-1, 0), (0, -1)])
def test_numbers_of_no_class_are_refused(true, predicted):
    with pytest.raises(ValueError, match="of 2"):
        count_confusions(np.array([[0, true]]), np.array([[0, predicted]]), 2, 255)


def test_names_and_order_of_results():
    metrics = SegmentationMetrics.of(np.array([[3, 1], [0, 4]]))
    found = metrics.in_percent(["a", "b"])
    names = ["mIoU", "fwIoU", "IoU-a", "IoU-b", "mACC", "pACC", "ACC-a", "ACC-b"]
    assert list(found) == names
    assert found["IoU-a"] == 75 and found["IoU-b"] == 80 and found["mIoU"] == 77.5
    assert found["ACC-a"] == 75 and found["ACC-b"] == 100 and found["pACC"] == 87.5


def count(picture, color, tolerance=30):
    return int((np.abs(np.asarray(picture).astype(int) - color).max(2) < tolerance).sum())


@pytest.mark.parametrize("classes", [1, 4, 19, 210])
def test_a_confusion_matrix_is_drawn_at_any_size(classes):
    names = [f"class of a rather long name {n}" for n in range(classes)]
    right = draw_confusion(np.diag(np.full(classes, 1000)), names, CAPTIONS, "a set: 3 images")
    assert max(right.size) < 3000
    drawn = min(classes, 200)
    cell = min(max(900 // drawn, 12), 64)
    # Green cells, less their lines and what is written on them.
    assert count(right, (0, 110, 60)) > 0.7 * drawn * cell**2
    assert count(right, (170, 15, 25)) == 0
    if classes > 1:
        wrong = draw_confusion(np.roll(np.diag(np.full(classes, 1000)), 1, axis=1), names, CAPTIONS)
        assert count(wrong, (0, 110, 60)) == 0
        assert count(wrong, (170, 15, 25)) > 0.7 * (drawn - 1) * cell**2 * (1 - 30 / 200)


def test_a_class_without_pixels_is_a_grey_row():
    confusion = np.array([[10, 0], [0, 0]])
    picture = draw_confusion(confusion, ["a", "b"], CAPTIONS)
    grey, green = count(picture, (226, 226, 232), 4), count(picture, (0, 110, 60))
    assert grey > 2 * 0.9 * 64**2 and 64**2 > green > 0.7 * 64**2
    assert draw_confusion(np.zeros((2, 2), dtype=np.int64), ["a", "b"], CAPTIONS).size > (100, 100)
