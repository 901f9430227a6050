"""Bad data, the whole way: from registered json through loaders and their worker processes."""

import json
import traceback
import uuid
from pathlib import Path

import pytest
import torch

from iwin_d2.d2.data import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from iwin_d2.data.coco import check_registered, register_coco
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
    # Left to the garbage collector, the iterator would wait five seconds for its worker.
    traceback.clear_frames(caught.tb)
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


def crowd_of_the_rest(data):
    """Ids from 0 and with gaps, a crowd, an image of crowds alone, an image without anything."""
    numbers = {category["id"]: 7 * index for index, category in enumerate(data["categories"])}
    for category in data["categories"]:
        category["id"] = numbers[category["id"]]
    for annotation in data["annotations"]:
        annotation["category_id"] = numbers[annotation["category_id"]]
    size = [data["images"][0][side] for side in ("height", "width")]
    crowd = {
        **data["annotations"][0],
        "iscrowd": 1,
        "segmentation": {"size": size, "counts": [5, size[0] * size[1] - 5]},
    }
    ids = [annotation["id"] for annotation in data["annotations"]]
    bare = [{**data["images"][0], "id": 100 + number} for number in range(2)]
    data["images"] += bare
    data["annotations"] += [
        {**crowd, "id": max(ids) + 1, "image_id": data["images"][0]["id"]},
        {**crowd, "id": max(ids) + 2, "image_id": 100},
    ]


def boxes_alone(data):
    for annotation in data["annotations"]:
        for key in ("segmentation", "area", "iscrowd"):
            del annotation[key]


def map_all(dataset, masks: bool) -> list[dict]:
    mapper = DetectionMapper(
        is_train=True,
        augmentations=[],
        image_format="RGB",
        use_instance_mask=masks,
        recompute_boxes=masks,
    )
    mapper.check_records(dataset)
    return [mapper(record) for record in dataset]


@pytest.mark.parametrize("masks", [True, False])
def test_crowds_and_images_without_objects(shapes, masks):
    before = map_all(records(shapes.train_json, shapes.train_images), masks)
    edit(shapes.train_json, crowd_of_the_rest)
    after = map_all(records(shapes.train_json, shapes.train_images), masks)
    assert len(before) == len(after) == 3  # the two other images have no objects
    for one, other in zip(before, after):
        assert one["instances"].gt_classes.tolist() == other["instances"].gt_classes.tolist()
        assert torch.equal(one["instances"].gt_boxes.tensor, other["instances"].gt_boxes.tensor)


def test_all_images_are_there_for_the_test(shapes):
    edit(shapes.train_json, crowd_of_the_rest)
    name = register_coco(f"all_{uuid.uuid4().hex}", shapes.train_json, shapes.train_images)
    dataset = get_detection_dataset_dicts(names=name, filter_empty=False)
    assert [record["image_id"] for record in dataset][-2:] == [100, 101]
    loader = build_detection_test_loader(dataset=dataset, mapper=mapper(False))
    assert [record["image_id"] for (record,) in loader][-2:] == [100, 101]


def test_boxes_alone_train_boxes_alone(shapes):
    before = map_all(records(shapes.train_json, shapes.train_images), masks=False)
    edit(shapes.train_json, boxes_alone)
    dataset = records(shapes.train_json, shapes.train_images)
    for one, other in zip(before, map_all(dataset, masks=False)):
        assert torch.equal(one["instances"].gt_boxes.tensor, other["instances"].gt_boxes.tensor)
        assert not other["instances"].has("gt_masks")
    with pytest.raises(DataError, match=r"its objects have no segmentation .*\(2 more images"):
        map_all(dataset, masks=True)


def test_a_data_set_can_be_checked_before_it_is_needed(shapes):
    edit(shapes.train_json, lambda d: d["annotations"][0].update(category_id=77))
    name = register_coco(f"early_{uuid.uuid4().hex}", shapes.train_json, shapes.train_images)
    with pytest.raises(DataError, match="category_id 77"):
        check_registered(name)
    check_registered("a name that others may know")


def test_missing_images_can_be_left_to_the_loader(shapes):
    next(Path(shapes.train_images).iterdir()).unlink()
    with pytest.raises(DataError, match="does not exist"):
        records(shapes.train_json, shapes.train_images)
    name = f"lenient_{uuid.uuid4().hex}"
    register_coco(name, shapes.train_json, shapes.train_images, check_files=None)
    assert len(get_detection_dataset_dicts(names=name)) == 3
