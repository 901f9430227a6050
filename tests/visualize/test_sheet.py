"""The contact sheet of predictions beside ground truth."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from iwin_d2.d2.structures import BoxMode
from iwin_d2.errors import DataError
from iwin_d2.visualize import contact_sheet

METADATA = SimpleNamespace(
    thing_classes=["nut", "fig"], thing_dataset_id_to_contiguous_id={3: 0, 9: 1}
)
GREY = 90


@pytest.fixture
def records(tmp_path) -> list[dict]:
    """Five grey images of different sizes, each with one object of class 1."""
    made = []
    for index, (width, height) in enumerate([(60, 40), (40, 60), (50, 50), (700, 500), (64, 64)]):
        path = tmp_path / f"{index}.png"
        Image.new("RGB", (width, height), (GREY,) * 3).save(path)
        made.append(
            {
                "file_name": str(path),
                "image_id": index,
                "width": width,
                "height": height,
                "annotations": [
                    {
                        "bbox": [5, 5, 20, 20],
                        "bbox_mode": BoxMode.XYWH_ABS,
                        "category_id": 1,
                        "segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]],
                    }
                ],
            }
        )
    return made


def prediction(image_id: int, **change) -> dict:
    box = {"bbox": [5, 5, 20, 20], "category_id": 9, "score": 0.9}
    return {"image_id": image_id, **box, **change}


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path))


def draw(records, results, path, **options) -> np.ndarray:
    assert contact_sheet(records, results, METADATA, path, **options) == str(path)
    return pixels(path)


def tiles(sheet: np.ndarray, tile: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Ground truth and prediction of a sheet with one image."""
    return sheet[44 : 44 + tile, 24 : 24 + tile], sheet[44 : 44 + tile, 30 + tile : 30 + 2 * tile]


def test_truth_and_prediction_lie_side_by_side(records, tmp_path):
    results = {2: [prediction(2)]}
    options = {"tile_size": 100}
    sheet = draw(records[2:3], results, tmp_path / "sheet.png", **options)
    truth, predicted = tiles(sheet)
    assert not np.all(truth[35, 35] == GREY)  # in the mask; drawn at twice the size
    assert np.all(predicted[40, 40] == GREY)  # a box alone
    for tile in (truth, predicted):
        assert not np.all(tile[8:52, 8:52] == GREY)
        assert np.all(tile[90, 90] == GREY)
    blank = draw(records[2:3], {}, tmp_path / "blank.png", **options)
    assert np.array_equal(tiles(blank)[0], truth)
    assert np.all(tiles(blank)[1] == GREY)


def test_predictions_below_the_threshold_are_left_out(records, tmp_path):
    results = {2: [prediction(2, score=0.4)]}
    low = draw(records[2:3], results, tmp_path / "low.png", tile_size=100)
    assert np.all(tiles(low)[1] == GREY)
    high = draw(records[2:3], results, tmp_path / "h.png", tile_size=100, score_threshold=0.3)
    assert not np.all(tiles(high)[1] == GREY)


def test_masks_of_predictions_are_filled(records, tmp_path):
    rle = {"size": [50, 50], "counts": [0, 2500]}
    sheet = draw(
        records[2:3], {2: [prediction(2, segmentation=rle)]}, tmp_path / "s.png", tile_size=100
    )
    assert not np.any(np.all(tiles(sheet)[1][60:98, 60:98] == GREY, axis=-1))


def test_all_sizes_of_images_and_many_of_them(records, tmp_path):
    sheet = draw(records * 3, {}, tmp_path / "sheet.png", max_images=6, tile_size=120)
    assert sheet.shape[1] == 3 * (2 * 120 + 6 + 24) + 24
    few = draw(records, {}, tmp_path / "few.png", max_images=1, tile_size=120)
    assert few.shape[1] == 246 + 48
    assert few.shape[0] < sheet.shape[0]


def test_it_is_written_whole_into_a_new_folder(records, tmp_path):
    path = tmp_path / "new" / "sheet.png"
    draw(records, {}, path, tile_size=60)
    assert [item.name for item in path.parent.iterdir()] == ["sheet.png"]


def test_what_cannot_be_drawn(records, tmp_path):
    with pytest.raises(DataError, match="no images to draw"):
        contact_sheet([], {}, METADATA, tmp_path / "s.png")
    with pytest.raises(DataError, match=r"category_id 4.*another data set"):
        contact_sheet(records, {0: [prediction(0, category_id=4)]}, METADATA, tmp_path / "s.png")
    records[0]["file_name"] = str(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"gone\.png"):
        contact_sheet(records, {}, METADATA, tmp_path / "s.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        contact_sheet(records[1:], {}, METADATA, tmp_path / "file" / "s.png")


def test_classes_that_nobody_named(records, tmp_path):
    with pytest.raises(DataError, match="does not say its classes: set thing_classes"):
        contact_sheet(records, {}, object(), tmp_path / "s.png")
