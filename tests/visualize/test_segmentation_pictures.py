"""Pictures of labelled images: data before and after augmentation, predictions beside the truth."""

import csv
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iwin_d2.d2.data import transforms as T
from iwin_d2.data.semantic_segmentation import LabelFormat, PadTo, SemSegMapper
from iwin_d2.data.semantic_segmentation.evaluation_files import write_label
from iwin_d2.engine.segment_drawing import OPACITY, WRONG, segment_color
from iwin_d2.errors import DataError
from iwin_d2.visualize import (
    are_labelled,
    choose_records,
    draw_label_data,
    draw_worst_labels,
    label_sheet,
    saved_labels,
)
from iwin_d2.visualize.label_maps import IGNORED, true_labels

NAMES = ["soil", "grass", "sky"]
SOIL, GRASS, SKY = range(3)
GREY = 128  # of images
TILE = 120  # twice the images' width


def scene():
    """The sky above grass, a field in it, and a corner that nobody labelled."""
    labels = np.full((40, 60), GRASS)
    labels[:20] = SKY
    labels[25:35, 5:25] = SOIL
    labels[30:, 50:] = IGNORED
    return labels


def write_record(folder, name="a", labels=None, **form):
    """An image of grey, and its label file in the form that is wanted."""
    labels = scene() if labels is None else labels
    meaning = LabelFormat(num_classes=3, **form)
    values = np.array([*meaning.file_values(), meaning.ignore_value])[labels]
    for part, pixels in (
        ("images", np.full((*labels.shape, 3), GREY, np.uint8)),
        ("labels", values.astype(np.uint8)),
    ):
        (folder / part).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / part / f"{name}.png")
    return {
        "file_name": str(folder / "images" / f"{name}.png"),
        "sem_seg_file_name": str(folder / "labels" / f"{name}.png"),
        "image_id": name,
        "height": labels.shape[0],
        "width": labels.shape[1],
        **meaning.as_record(),
    }


def panels(path, count, tile=TILE, above=0):
    """The drawings in a picture, below heading and titles and a row that is so high."""
    picture = np.asarray(Image.open(path)).astype(int)
    top = 16 + 28 + 26 + (above + 10 + 26 if above else 0)
    return [picture[top:, 24 + i * (tile + 10) :][:, :tile] for i in range(count)]


def blended(number):
    return OPACITY * 255 * np.array(segment_color(number)) + (1 - OPACITY) * GREY


def close(pixel, color, tolerance=3):
    return np.abs(pixel - np.array(color)).max() <= tolerance


FORMS = [
    {},
    {"reduce_zero_label": True},
    {"label_values": {7: 0, 11: 1, 23: 2, 0: 255}},
    {"ignore_value": 9},
]


# ---- label maps ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_truth_and_saved_predictions_are_in_class_numbers(tmp_path, form):
    record = write_record(tmp_path, **form)
    np.testing.assert_array_equal(true_labels(record), scene())
    predicted = np.where(scene() == IGNORED, SKY, scene())
    folder = tmp_path / "inference" / "labels"
    write_label(predicted, record, LabelFormat.of_record(record), str(folder))
    for place in (folder, folder.parent):
        ((of, found),) = saved_labels(place, [record], num_classes=3)
        assert of is record
        np.testing.assert_array_equal(found, predicted)


def test_saved_predictions_that_are_none(tmp_path):
    records = [write_record(tmp_path, name) for name in ("a", "b", "c")]
    folder = tmp_path / "inference"
    write_label(np.zeros((40, 60), int), records[0], LabelFormat(3), str(folder))
    with pytest.raises(DataError, match=r"no \S*b\.png for .* 1 other .* of 3\).*save_labels=True"):
        next(saved_labels(folder, records, num_classes=3))
    truth = tmp_path / "labels"  # which has ignored pixels
    with pytest.raises(DataError, match=r"a\.png has pixels that are ignored"):
        next(saved_labels(truth, records, num_classes=3))


def test_data_sets_of_labels_are_told_from_those_of_objects(tmp_path):
    record = write_record(tmp_path)
    assert are_labelled([record])
    assert not are_labelled([])
    assert not are_labelled([{**record, "annotations": []}])  # panoptic ones have both
    assert not are_labelled([{"file_name": "a.png", "annotations": []}])
    assert choose_records([record], ["a"], 1) == [record]
    with pytest.raises(DataError, match="no image of id b: its 1 images have ids from a to a"):
        choose_records([record], ["b"], 1)


# ---- data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_labels_are_drawn_before_and_after_augmentation(tmp_path, form):
    record = write_record(tmp_path, **form)
    mapper = SemSegMapper(is_train=True, augmentations=[T.RandomFlip(prob=1.0), PadTo((60, 60), 7)])
    index = draw_label_data([record], mapper, NAMES, tmp_path / "out", draws=1, tile_size=TILE)
    assert "0001_a.png" in index.read_text()
    for image in panels(tmp_path / "out" / "0001_a.png", 2):
        assert (image[:72] == GREY).all()  # as it is
    before, after = panels(tmp_path / "out" / "0001_a.png", 2, above=120)
    # Rows and columns are those of pixels of the image, drawn twice as large.
    for row, column, number in ((5, 30, SKY), (22, 10, GRASS), (30, 15, SOIL)):
        assert close(before[2 * row, 2 * column], blended(number))
        assert close(after[2 * row, 2 * (59 - column)], blended(number))
    hatched = {tuple(pixel) for pixel in before[64:76, 104:116].reshape(-1, 3).tolist()}
    assert len(hatched) == 2 and all(max(pixel) == min(pixel) for pixel in hatched)
    padding = after[84:116, 4:116].reshape(-1, 3)
    assert np.ptp(padding, axis=0).max() == 0 and padding[0].min() > 200


def test_what_is_ignored_is_not_taken_for_padding(tmp_path):
    labels = scene()
    labels[30:] = IGNORED
    record = write_record(tmp_path, labels=labels)
    pixels = np.asarray(Image.open(record["file_name"])).copy()
    pixels[30:, ::2] = 10  # not of one colour
    Image.fromarray(pixels).save(record["file_name"])
    mapper = SemSegMapper(is_train=True, augmentations=[])
    draw_label_data([record], mapper, NAMES, tmp_path / "out", draws=1, tile_size=TILE)
    before, after = panels(tmp_path / "out" / "0001_a.png", 2, above=80)
    assert not (before[:80] == GREY).all()
    np.testing.assert_array_equal(before[:80], after[:80])


def test_a_mapper_without_labels_shows_the_image(tmp_path):
    record = write_record(tmp_path)
    mapper = SemSegMapper(is_train=False, augmentations=[])
    draw_label_data([record], mapper, NAMES, tmp_path / "out", draws=1, tile_size=TILE)
    before, after = panels(tmp_path / "out" / "0001_a.png", 2, above=80)
    assert (after[:80] == GREY).all() and not (before[:80] == GREY).all()


# ---- predictions ---------------------------------------------------------------------------------


def test_the_worst_images_come_first_with_their_errors(tmp_path):
    truth = scene()
    right = np.where(truth == IGNORED, GRASS, truth)
    half = right.copy()
    half[:20, :30] = GRASS  # half of the sky
    empty = np.full((40, 60), IGNORED)
    maps = {"right": right, "empty": right, "bad": np.full((40, 60), SKY), "half": half}
    records = [
        write_record(tmp_path, name, empty if name == "empty" else None, reduce_zero_label=True)
        for name in maps
    ]
    out = tmp_path / "out"
    predicted = zip(records, maps.values())
    draw_worst_labels(predicted, NAMES, out, max_images=2, tile_size=4 * 60)
    rows = list(csv.DictReader((out / "index.csv").open()))
    assert [row["image_id"] for row in rows] == ["bad", "half", "right", "empty"]
    # Of 2300 pixels that count, 1200 are sky, 200 soil, 900 grass.
    assert float(rows[0]["miou"]) == pytest.approx(1200 / 2300 / 3, abs=1e-4)
    assert float(rows[1]["miou"]) == pytest.approx((600 / 1200 + 1 + 900 / 1500) / 3, abs=1e-4)
    assert float(rows[1]["pixel_accuracy"]) == pytest.approx(1700 / 2300, abs=1e-4)
    assert (rows[1]["worst_class"], rows[1]["worst_iou"]) == ("sky", "0.5000")
    assert float(rows[2]["miou"]) == 1
    assert float(rows[2]["ignored"]) == pytest.approx(100 / 2400, abs=1e-4)
    assert (rows[3]["miou"], rows[3]["worst_class"], rows[3]["ignored"]) == ("", "", "1.0000")
    assert [row["picture"] for row in rows] == ["0001_bad.png", "0002_half.png", "", ""]
    assert {path.name for path in out.glob("*.png")} == {"0001_bad.png", "0002_half.png"}
    drawn = panels(out / "0002_half.png", 3, tile=4 * 60)
    of_truth, of_prediction, errors = (panel[: 4 * 40] for panel in drawn)
    assert close(of_truth[20, 40], blended(SKY)) and close(of_prediction[20, 40], blended(GRASS))
    red = np.abs(errors - 255 * np.array(WRONG)).max(2) <= 1
    assert red[: 4 * 20, : 4 * 30].all()
    assert not red[:, 4 * 30 :].any() and not red[4 * 20 :].any()


def test_few_label_maps_are_in_memory(tmp_path):
    record = write_record(tmp_path)
    references = []
    most = 0

    class Map(np.ndarray):
        """An array that can be watched."""

    def predicted():
        nonlocal most
        for number in range(12):
            labels = np.full((40, 60), number % 3).view(Map)
            references.append(weakref.ref(labels))
            yield {**record, "image_id": number}, labels
            del labels
            most = max(most, sum(reference() is not None for reference in references))

    draw_worst_labels(predicted(), NAMES, tmp_path / "out", max_images=2, tile_size=TILE)
    assert 2 <= most <= 4
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def test_a_sheet_of_pairs(tmp_path):
    records = [write_record(tmp_path, name) for name in "abcd"]
    maps = [np.full((40, 60), SKY)] * 4
    path = label_sheet(zip(records, maps), NAMES, tmp_path / "sheet.png", tile_size=TILE)
    sheet = np.asarray(Image.open(path)).astype(int)
    assert close(sheet[44 + 60, 24 + 60], blended(GRASS), 10)
    assert close(sheet[44 + 60, 24 + TILE + 6 + 90], blended(SKY), 10)
    assert sheet.shape[1] == 3 * (2 * TILE + 6 + 24) + 24


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (np.zeros((20, 30), int), r"a\.png is 60 x 40 pixels, but the prediction .* 30 x 20"),
        (np.full((40, 60), 3), r"Class 3 is predicted for .*a\.png, but the data set has 3"),
    ],
)
def test_predictions_of_something_else_are_refused(tmp_path, labels, sentence):
    record = write_record(tmp_path)
    with pytest.raises(DataError, match=sentence):
        draw_worst_labels([(record, labels)], NAMES, tmp_path / "out")
    with pytest.raises(DataError, match=sentence):
        label_sheet([(record, labels)], NAMES, tmp_path / "sheet.png")
    assert not Path(tmp_path / "out").exists()


def test_no_images_at_all(tmp_path):
    with pytest.raises(DataError, match="the data set is empty"):
        draw_worst_labels([], NAMES, tmp_path / "out")
    with pytest.raises(DataError, match="the data set is empty"):
        label_sheet([], NAMES, tmp_path / "sheet.png")
