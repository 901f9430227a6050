"""Bad data, the whole way: from registered json through loaders and their worker processes."""

import json
import uuid
from pathlib import Path

import pytest

from iwin_d2.d2.data import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from iwin_d2.data.coco import register_coco
from iwin_d2.data.mapper import DetectionMapper
from iwin_d2.data.shapes import generate_shapes_dataset
from iwin_d2.errors import DataError


@pytest.fixture
def shapes(tmp_path):
    return generate_shapes_dataset(tmp_path / "shapes", 3, 1, image_size=(64, 64))


def records(json_file, image_root) -> list[dict]:
    name = register_coco(f"bad_{uuid.uuid4().hex}", str(json_file), str(image_root))
    return get_detection_dataset_dicts(names=name, filter_empty=True)


def mapper(is_train: bool) -> DetectionMapper:
    return DetectionMapper(
        is_train=is_train, augmentations=[], image_format="RGB", use_instance_mask=True
    )


def edit(json_file, change) -> None:
    data = json.loads(Path(json_file).read_text())
    change(data)
    Path(json_file).write_text(json.dumps(data))


@pytest.mark.parametrize(("workers", "train"), [(1, True), (0, False)])
def test_a_truncated_image_ends_the_loading_with_one_sentence(shapes, workers, train):
    dataset = records(shapes.train_json, shapes.train_images)
    for path in Path(shapes.train_images).iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if train:
        loader = build_detection_train_loader(
            dataset=dataset, mapper=mapper(True), total_batch_size=1, num_workers=workers
        )
    else:
        loader = build_detection_test_loader(
            dataset=dataset, mapper=mapper(False), num_workers=workers
        )
    with pytest.raises(DataError) as caught:
        next(iter(loader))
    sentence = caught.value.sentence
    assert sentence.startswith("image id ")
    assert shapes.train_images in sentence
    assert "truncated" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: d["images"][1].update(file_name="gone.jpg"), r"image 2: .*gone\.jpg does not"),
        (lambda d: d["annotations"][0].update(category_id=77), "category_id 77"),
        (lambda d: d.update(annotations=[]), "not one annotation"),
        (lambda d: d.update(images=[], annotations=[]), "the data set is empty"),
        (lambda d: d.pop("categories"), "'categories' is missing"),
    ],
)
def test_a_bad_json_ends_the_loading_before_it_starts(shapes, change, sentence):
    edit(shapes.train_json, change)
    with pytest.raises(DataError, match=sentence) as caught:
        records(shapes.train_json, shapes.train_images)
    assert shapes.train_json in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_files_that_cannot_be_parsed(shapes, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        records(tmp_path / "gone.json", shapes.train_images)
    half = Path(shapes.train_json).read_text()[:500]
    Path(shapes.train_json).write_text(half)
    with pytest.raises(DataError, match=r"is not json: .* at line 1, column"):
        records(shapes.train_json, shapes.train_images)


def test_an_image_of_another_size_than_the_json_says(shapes):
    edit(shapes.train_json, lambda d: [image.update(width=65) for image in d["images"]])
    dataset = records(shapes.train_json, shapes.train_images)
    with pytest.raises(DataError, match=r"is 64x64 pixels, but the json says 65x64"):
        mapper(True)(dataset[0])
