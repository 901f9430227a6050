"""The generated shapes data set."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from iwin_d2.data.coco_check import check_coco
from iwin_d2.data.contours import signed_area
from iwin_d2.data.shape_scenes import CLASS_NAMES, compose_scene, draw_scene
from iwin_d2.data.shapes import ShapesPaths, generate_shapes_dataset
from iwin_d2.errors import DataError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> ShapesPaths:
    root = tmp_path_factory.mktemp("data") / "shapes"
    return generate_shapes_dataset(root, num_train=12, num_val=4, seed=3)


def fingerprints(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def test_pycocotools_reads_it_and_the_checks_find_nothing(dataset):
    for json_file, images, count in (
        (dataset.train_json, dataset.train_images, 12),
        (dataset.val_json, dataset.val_images, 4),
    ):
        assert check_coco(json_file, images, check_files="open") == []
        coco = COCO(json_file)
        assert len(coco.imgs) == count
        assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(CLASS_NAMES)
        assert all(coco.getAnnIds(image_id) for image_id in coco.imgs)


def test_polygons_boxes_and_areas_are_those_of_the_visible_masks(dataset):
    coco = COCO(dataset.train_json)
    for index, image_id in enumerate(sorted(coco.imgs)):
        rng = np.random.default_rng([3, 0, index])
        width, height = rng.integers(160, 161, 2)
        scene = compose_scene(rng, int(width), int(height))
        _, masks = draw_scene(scene)
        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        assert [a["category_id"] - 1 for a in annotations] == [o.category for o in scene.objects]
        for annotation, mask in zip(annotations, masks):
            drawn = coco.annToMask(annotation).astype(bool)
            assert (drawn & mask).sum() / (drawn | mask).sum() >= 0.95
            assert annotation["area"] == mask.sum()
            x, y, w, h = (int(value) for value in annotation["bbox"])
            assert mask[y : y + h, x : x + w].sum() == mask.sum()
            assert mask[y].any() and mask[y + h - 1].any()
            assert mask[:, x].any() and mask[:, x + w - 1].any()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        generate_shapes_dataset(tmp_path / name, 3, 1, image_size=(64, 90), seed=seed)
    first, second, other = (fingerprints(tmp_path / name) for name in "abc")
    assert first == second
    assert first.keys() == other.keys()
    assert not set(first.values()) & set(other.values())


def test_image_sizes_lie_in_the_range(tmp_path):
    paths = generate_shapes_dataset(tmp_path / "shapes", 8, 1, image_size=(64, 96))
    sizes = [Image.open(path).size for path in Path(paths.train_images).iterdir()]
    sides = [side for size in sizes for side in size]
    assert min(sides) >= 64
    assert max(sides) <= 96
    assert len(set(sizes)) > 1


def test_objects_stay_visible_and_whole():
    for index in range(40):
        scene = compose_scene(np.random.default_rng([9, index]), 160, 120)
        _, masks = draw_scene(scene)
        assert 1 <= len(masks) <= 6
        for item, mask in zip(scene.objects, masks):
            assert mask.sum() >= 0.4 * abs(signed_area(item.outline))


def test_objects_overlap_and_vary():
    sizes, categories, hidden = [], set(), 0
    for index in range(40):
        scene = compose_scene(np.random.default_rng([11, index]), 160, 160)
        _, masks = draw_scene(scene)
        for item, mask in zip(scene.objects, masks):
            categories.add(item.category)
            sizes.append(np.ptp(item.outline, axis=0).max())
            hidden += mask.sum() < 0.9 * abs(signed_area(item.outline))
    assert categories == set(range(len(CLASS_NAMES)))
    assert min(sizes) < 25
    assert max(sizes) > 65
    assert hidden > 5


def test_it_is_reused_as_it_is(dataset):
    root = Path(dataset.train_images).parent
    marker = root / "dataset.json"
    before = marker.stat().st_mtime_ns
    assert generate_shapes_dataset(root, num_train=12, num_val=4, seed=3) == dataset
    assert marker.stat().st_mtime_ns == before


def test_other_parameters_are_refused_unless_forced(tmp_path):
    root = tmp_path / "shapes"
    generate_shapes_dataset(root, 2, 1, image_size=(64, 64))
    before = fingerprints(root)
    with pytest.raises(DataError, match=r"other parameters \(num_train 2 instead of 3\).*--force"):
        generate_shapes_dataset(root, 3, 1, image_size=(64, 64))
    assert fingerprints(root) == before
    paths = generate_shapes_dataset(root, 3, 1, image_size=(64, 64), force=True)
    assert len(json.loads(Path(paths.train_json).read_text())["images"]) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_with_something_else_is_left_alone(tmp_path, force):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(DataError, match="not a generated shapes data set"):
        generate_shapes_dataset(tmp_path, 2, 1, force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_an_interrupted_generation_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("iwin_d2.data.shapes._annotations", interrupt)
    with pytest.raises(KeyboardInterrupt):
        generate_shapes_dataset(tmp_path / "shapes", 2, 1, image_size=(64, 64))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [{"num_train": 0}, {"num_val": 0}, {"image_size": (32, 64)}, {"image_size": (96, 64)}],
)
def test_senseless_parameters(tmp_path, arguments):
    with pytest.raises(DataError, match="cannot generate"):
        generate_shapes_dataset(tmp_path / "shapes", **arguments)
