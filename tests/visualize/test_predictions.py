"""Pictures of predictions beside ground truth, the worst images first."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from iwin_d2.d2.structures import BoxMode
from iwin_d2.errors import DataError
from iwin_d2.visualize import draw_worst

METADATA = SimpleNamespace(
    thing_classes=["nut", "fig"], thing_dataset_id_to_contiguous_id={3: 0, 9: 1}
)


def annotation(x, y, side=20, category_id=1, **more):
    box = {"bbox": [x, y, side, side], "bbox_mode": BoxMode.XYWH_ABS, "category_id": category_id}
    return {**box, **more}


def prediction(image_id, x, y, side=20, **change):
    box = {"bbox": [x, y, side, side], "category_id": 9, "score": 0.9}
    return {"image_id": image_id, **box, **change}


@pytest.fixture
def records(tmp_path) -> list[dict]:
    """Three images of 64 pixels, each with two objects."""
    made = []
    for number in (11, 12, 13):
        path = tmp_path / "images" / f"pic #{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), (90, 90, 90)).save(path)
        record = {"file_name": str(path), "image_id": number, "width": 64, "height": 64}
        made.append({**record, "annotations": [annotation(2, 2), annotation(40, 40)]})
    return made


RESULTS = {
    11: [prediction(11, 2, 2), prediction(11, 40, 40)],  # all right
    12: [prediction(12, 2, 2, category_id=3), prediction(12, 30, 2)],  # all wrong
    13: [prediction(13, 2, 2), prediction(13, 40, 40, score=0.4)],  # one too unsure
}


def rows_of(folder):
    with open(folder / "index.csv") as file:
        return list(csv.DictReader(file))


def test_the_worst_come_first_and_every_image_is_in_the_index(records, tmp_path):
    folder = tmp_path / "new" / "worst"
    index = draw_worst(records, RESULTS, METADATA, folder, max_images=2)
    rows = rows_of(folder)
    assert [row["image_id"] for row in rows] == ["12", "13", "11"]
    assert [row["f1"] for row in rows] == ["0.0000", "0.6667", "1.0000"]
    assert [(row["found"], row["missed"], row["wrong"]) for row in rows] == [
        ("0", "2", "2"),
        ("1", "1", "0"),
        ("2", "0", "0"),
    ]
    assert [row["picture"] for row in rows] == ["0001_pic_12.png", "0002_pic_13.png", ""]
    assert {path.name for path in folder.iterdir()} == {
        "index.csv",
        "index.html",
        "0001_pic_12.png",
        "0002_pic_13.png",
    }
    page = index.read_text()
    assert page.index("pic #12.png (image 12), F1 0.00") < page.index("0002_pic_13.png")
    assert "pic #11" not in page


def test_what_was_found_missed_and_wrong_has_colours_of_its_own(records, tmp_path):
    records[0]["annotations"].append(annotation(2, 40, iscrowd=1))
    results = {11: [prediction(11, 2, 2), prediction(11, 40, 2), prediction(11, 4, 42, side=16)]}
    draw_worst(records[:1], results, METADATA, tmp_path, max_images=1, tile_size=320)
    picture = np.asarray(Image.open(tmp_path / "0001_pic_11.png")).astype(int)
    truth, predicted = picture[:390, 24:344], picture[:390, 354:674]

    def has(part, rgb):  # frames may be translucent
        part = part.reshape(-1, 3) - 90
        towards = np.array(rgb) - 90
        along = part @ towards / (towards @ towards)
        across = np.abs(part - along[:, None] * towards).max(1)
        return bool(((along > 0.4) & (across < 12)).any())

    blue, orange, red, grey = (26, 166, 255), (255, 158, 0), (255, 26, 76), (153, 153, 153)
    assert has(truth, blue) and has(truth, orange) and not has(truth, red)
    assert has(predicted, blue) and has(predicted, red) and not has(predicted, orange)
    assert has(predicted, grey)
    assert rows_of(tmp_path)[0]["wrong"] == "1"  # the one on the crowd does not count


def test_equal_scores_are_ordered_by_the_number_of_errors(records, tmp_path):
    results = {13: [prediction(13, 30, 2)]}
    draw_worst(records, results, METADATA, tmp_path, max_images=1)
    assert [row["image_id"] for row in rows_of(tmp_path)] == ["13", "11", "12"]


def test_what_cannot_be_drawn(records, tmp_path):
    with pytest.raises(DataError, match=r"no images to draw in .*out: the data set is empty"):
        draw_worst([], {}, METADATA, tmp_path / "out")
    bare = [{**record, "annotations": []} for record in records]
    with pytest.raises(DataError, match="no image of the data set has annotations"):
        draw_worst(bare, {}, METADATA, tmp_path / "out")
    with pytest.raises(DataError, match=r"category_id 4.*another data set"):
        draw_worst(records, {12: [prediction(12, 0, 0, category_id=4)]}, METADATA, tmp_path / "out")
    with pytest.raises(DataError, match="does not say its classes"):
        draw_worst(records, {}, object(), tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        draw_worst(records, {}, METADATA, tmp_path / "file")
