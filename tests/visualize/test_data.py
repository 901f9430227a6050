"""Pictures of images before and after augmentation."""

import numpy as np
import pytest
import torch
from PIL import Image

from iwin_d2.d2.data import transforms as T
from iwin_d2.d2.structures import BoxMode
from iwin_d2.data.mapper import DetectionMapper
from iwin_d2.errors import ConfigError, DataError
from iwin_d2.visualize import choose_records, draw_data
from iwin_d2.visualize.data import to_rgb

NAMES = ["nut", "fig"]
TILE = 100


@pytest.fixture
def record(tmp_path) -> dict:
    """An image whose left half is red, with an object there."""
    pixels = np.full((40, 60, 3), (10, 20, 200), dtype=np.uint8)
    pixels[:, :30] = (200, 20, 10)
    path = tmp_path / "halves.png"
    Image.fromarray(pixels).save(path)
    annotation = {"bbox": [2, 2, 12, 12], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}
    annotation["segmentation"] = [[2, 2, 14, 2, 14, 14, 2, 14]]
    size = {"width": 60, "height": 40}
    return {"file_name": str(path), "image_id": 5, **size, "annotations": [annotation]}


def mapper(image_format="RGB", is_train=True, augmentations=None):
    return DetectionMapper(
        is_train=is_train,
        augmentations=augmentations or [T.RandomFlip(prob=1.0), T.ResizeShortestEdge(80, 200)],
        image_format=image_format,
        use_instance_mask=is_train,
    )


def tiles(folder, count) -> list[np.ndarray]:
    """The drawings of the one picture in a folder, below the heading and the titles."""
    (path,) = folder.glob("*.png")
    picture = np.asarray(Image.open(path)).astype(int)
    top = 16 + 28 + 26
    return [picture[top : top + 66, 24 + i * 110 :][:, :TILE] for i in range(count)]


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_the_image_is_drawn_as_annotated_and_as_the_mapper_makes_it(record, tmp_path, image_format):
    index = draw_data(
        [record],
        mapper(image_format),
        NAMES,
        tmp_path / "out",
        draws=1,
        image_format=image_format,
        tile_size=TILE,
    )
    before, after = tiles(tmp_path / "out", 2)
    red, blue = (200, 20, 10), (10, 20, 200)
    for tile, (left, right) in ((before, (red, blue)), (after, (blue, red))):
        assert np.abs(tile[55, 30] - left).max() < 8
        assert np.abs(tile[55, 70] - right).max() < 8
    # The object lies in the red half, left in one, right in the other.
    assert np.abs(before[12, 12] - red).max() > 30
    assert np.abs(after[12, 87] - red).max() > 30
    assert np.abs(after[12, 12] - blue).max() < 8
    assert "halves.png (image 5)" in index.read_text()


def test_draws_are_random_and_repeat_with_the_seed(record, tmp_path):
    crops = [T.RandomCrop("absolute", (20, 30))]
    options = {"draws": 2, "tile_size": TILE}
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        draw_data(
            [record], mapper(augmentations=crops), NAMES, tmp_path / name, seed=seed, **options
        )
    a, b, c = (tiles(tmp_path / name, 3) for name in "abc")
    assert np.array_equal(a[1], b[1]) and np.array_equal(a[2], b[2])
    assert np.abs(a[1] - a[2]).max() > 100  # the border between red and blue lies elsewhere
    assert np.abs(a[1] - c[1]).max() > 100
    assert np.array_equal(a[0], c[0])


def test_a_mapper_for_testing_gives_no_objects(record, tmp_path):
    draw_data([record], mapper(is_train=False), NAMES, tmp_path, draws=1, tile_size=TILE)
    assert len(list(tmp_path.glob("0001_halves.png"))) == 1


def test_records_are_spread_or_chosen_by_id():
    records = [{"image_id": number} for number in range(10, 20)]
    assert [r["image_id"] for r in choose_records(records, None, 3)] == [10, 14, 19]
    assert [r["image_id"] for r in choose_records(records, [17, 11], 1)] == [17, 11]
    with pytest.raises(DataError, match="no image of id 4: its 10 images have ids from 10 to 19"):
        choose_records(records, [12, 4], 1)
    with pytest.raises(DataError, match="data set is empty"):
        choose_records([], None, 1)


def test_what_cannot_be_drawn(record, tmp_path):
    with pytest.raises(ConfigError, match=r"leaves out .*halves\.png \(image 5\)"):
        draw_data([record], lambda _: None, NAMES, tmp_path)
    with pytest.raises(ConfigError, match="1 channels in the format L"):
        to_rgb(torch.zeros(1, 4, 4), "L")
    record["file_name"] = str(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"gone\.png"):
        draw_data([record], mapper(), NAMES, tmp_path)
