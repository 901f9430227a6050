"""The generated shapes with label images."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iwin_d2.data.generated import scenes
from iwin_d2.data.segmentation_shapes import (
    SEGMENT_NAMES,
    SegmentationPaths,
    generate_segmentation_dataset,
)
from iwin_d2.data.semantic_segmentation import (
    class_names,
    load_registered_segmentation,
    read_record_label,
    register_folder,
)
from iwin_d2.data.shape_scenes import draw_scene
from iwin_d2.data.shapes import generate_shapes_dataset
from iwin_d2.errors import DataError


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> SegmentationPaths:
    root = tmp_path_factory.mktemp("data") / "segments"
    # The scenes of detection.
    return generate_segmentation_dataset(
        root, 12, 4, image_size=(96, 130), seed=3, max_objects=6, sizes=(0.11, 0.5)
    )


def test_it_can_be_registered_without_a_finding(paths, caplog):
    assert class_names(paths.classes) == list(SEGMENT_NAMES)
    for images, labels, count in (
        (paths.train_images, paths.train_labels, 12),
        (paths.val_images, paths.val_labels, 4),
    ):
        with caplog.at_level(logging.WARNING):
            name = register_folder(f"segments_{count}", images, labels, paths.classes)
            records = load_registered_segmentation(name)
        assert len(records) == count and not caplog.records


def test_labels_are_what_is_visible(paths):
    parameters = {"num_train": 12, "seed": 3, "image_size": (96, 130)}
    name = register_folder("segments", paths.train_images, paths.train_labels, paths.classes)
    seen = set()
    for record, scene in zip(load_registered_segmentation(name), scenes(parameters, "train")):
        pixels, masks = draw_scene(scene)
        labels = read_record_label(record)
        assert np.array_equal(labels == 0, ~np.any(masks, axis=0))
        for item, mask in zip(scene.objects, masks):
            assert (labels[mask] == item.category + 1).all()
            seen.add(SEGMENT_NAMES[item.category + 1])
        picture = np.asarray(Image.open(record["file_name"])).astype(int)
        assert np.abs(picture - pixels).mean() < 6  # JPEG
    assert seen == set(SEGMENT_NAMES[1:])


def test_the_same_scenes_as_for_detection(paths, tmp_path):
    shapes = generate_shapes_dataset(tmp_path / "shapes", 12, 4, image_size=(96, 130), seed=3)
    for ours, theirs in ((paths.train_images, shapes.train_images),):
        files = sorted(Path(ours).iterdir())
        assert len(files) == 12
        for path in files:
            assert path.read_bytes() == (Path(theirs) / path.name).read_bytes()


def test_the_same_seed_gives_the_same_labels(tmp_path):
    roots = [tmp_path / name for name in ("a", "b", "c")]
    for root, seed in zip(roots, (1, 1, 2)):
        generate_segmentation_dataset(root, 2, 1, image_size=(64, 64), seed=seed)
    files = [{str(p.relative_to(r)): p.read_bytes() for p in r.rglob("*.png")} for r in roots]
    assert len(files[0]) == 3
    assert files[0] == files[1] != files[2]


def test_a_folder_of_another_task_is_left_alone(tmp_path):
    generate_shapes_dataset(tmp_path / "shapes", 1, 1, image_size=(64, 64))
    with pytest.raises(DataError, match="is not a generated shapes data set of this task"):
        generate_segmentation_dataset(tmp_path / "shapes", 1, 1, image_size=(64, 64), force=True)
    generate_segmentation_dataset(tmp_path / "segments", 1, 1, image_size=(64, 64))
    with pytest.raises(DataError, match=r"other parameters \(seed 0 instead of 4\)"):
        generate_segmentation_dataset(tmp_path / "segments", 1, 1, image_size=(64, 64), seed=4)
    with pytest.raises(DataError, match="cannot generate 0 training"):
        generate_segmentation_dataset(tmp_path / "none", 0)
