"""The moving shapes: real files, the same each time, whose classes only motion tells."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from iwin_d2.data.video.moving_shapes import (
    MOTIONS,
    compose_moving_scene,
    draw_moving_scene,
)
from iwin_d2.data.video.records import load_video_list

pytest.importorskip("av", reason="PyAV is not installed")

from iwin_d2.data.video.decode import VideoFile
from iwin_d2.data.video.shapes import MovingShapesPaths, generate_moving_shapes
from iwin_d2.errors import DataError


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    root = tmp_path_factory.mktemp("generated") / "shapes"
    return generate_moving_shapes(root, num_train=12, num_val=6, size=64, num_frames=(8, 12))


@pytest.fixture
def scene():
    return compose_moving_scene(np.random.default_rng(3))


def test_the_first_frame_is_the_same_whatever_the_class(scene):
    first = [draw_moving_scene(scene, motion, 0, 64) for motion in MOTIONS]
    assert all(np.array_equal(frame, first[0]) for frame in first)
    later = [draw_moving_scene(scene, motion, 5, 64).astype(int) for motion in MOTIONS]
    for i, frame in enumerate(later):
        assert all(np.abs(frame - other).mean() > 1 for other in later[:i])


@pytest.mark.parametrize("motion", MOTIONS)
def test_every_frame_is_the_first_one_of_another_scene(scene, motion):
    right, down, turn = (scene.sense * part for part in MOTIONS[motion])
    moved = replace(
        scene,
        shapes=tuple(
            replace(
                shape,
                x=(shape.x + 7 * right * scene.shift) % 1,
                y=(shape.y + 7 * down * scene.shift) % 1,
                angle=shape.angle + 7 * turn * scene.turn,
            )
            for shape in scene.shapes
        ),
    )
    frame = draw_moving_scene(scene, motion, 7, 64)
    other_class = "vertical" if motion != "vertical" else "turning"
    np.testing.assert_array_equal(frame, draw_moving_scene(moved, other_class, 0, 64))


def test_motions_are_what_they_are_called(scene):
    flat = replace(scene, background=np.full_like(scene.background, 128), shift=4 / 64)
    start = draw_moving_scene(flat, "still", 0, 64)
    assert np.array_equal(draw_moving_scene(flat, "still", 9, 64), start)
    for motion, sense, axis in itertools.product(("horizontal", "vertical"), (1, -1), (0, 1)):
        moved = draw_moving_scene(replace(flat, sense=sense), motion, 1, 64)
        difference = np.abs(moved.astype(int) - np.roll(start, 4 * sense, axis)).mean()
        assert (difference < 0.2) == (axis == (motion == "horizontal"))
    # A quarter turn of a bar that lies: its right end points down, as y grows downwards.
    shape = replace(
        flat.shapes[0],
        corners=((0, -0.1), (1, -0.1), (1, 0.1), (0, 0.1)),
        **{"x": 0.5, "y": 0.5, "angle": 0, "radius": 0.4, "colour": (255, 255, 255)},
    )
    bar = replace(flat, shapes=(shape,), turn=np.pi / 2)
    for sense, row in ((1, 50), (-1, 14)):
        lit = draw_moving_scene(replace(bar, sense=sense), "turning", 1, 64)[:, 32].min(-1) > 250
        assert lit[row] and not lit[64 - row]


def test_lists_and_files(generated):
    for name, count in (("train_list", 12), ("val_list", 6)):
        videos = load_video_list(getattr(generated, name), classes=generated.classes)
        assert videos.class_names == list(MOTIONS)
        assert videos.labels.tolist() == [i % 4 for i in range(count)]
        for record in videos:
            with VideoFile(record["file_name"]) as video:
                assert 8 <= len(video) <= 12
                assert video.read([len(video) - 1]).shape == (1, 3, 64, 64)
    assert generated == MovingShapesPaths.under(generated.root)


def test_files_show_the_scene(generated):
    rng = np.random.default_rng([0, 1, 2])
    count = int(rng.integers(8, 12, endpoint=True))
    scene = compose_moving_scene(rng)
    with VideoFile(f"{generated.root}/val/00002.mp4") as video:
        assert len(video) == count
        decoded = video.read(range(count)).permute(0, 2, 3, 1).numpy().astype(int)
    for number, frame in enumerate(decoded):
        assert np.abs(frame - draw_moving_scene(scene, "vertical", number, 64)).mean() < 8


def test_the_same_parameters_give_the_same_files(generated, tmp_path):
    def content(paths, name):
        return (Path(paths.root) / name).read_bytes()

    again = generate_moving_shapes(tmp_path / "again", 12, 6, 64, (8, 12))
    for name in [f"train/{i:05d}.mp4" for i in range(12)] + ["train.txt", "dataset.json"]:
        assert content(again, name) == content(generated, name)
    other = generate_moving_shapes(tmp_path / "other", 1, 1, 64, (8, 12), seed=1)
    assert content(other, "train/00000.mp4") != content(generated, "train/00000.mp4")


def test_what_is_there_is_used_again_and_nothing_else_touched(generated, tmp_path):
    assert generate_moving_shapes(generated.root, 12, 6, 64, (8, 12)) == generated
    with pytest.raises(DataError, match=r"other parameters .*num_train 12 instead of 13"):
        generate_moving_shapes(generated.root, 13, 6, 64, (8, 12))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    with pytest.raises(DataError, match="is not a generated"):
        generate_moving_shapes(tmp_path / "mine")


@pytest.mark.parametrize(
    "parameters",
    [{"num_val": 0}, {"size": 33}, {"size": 16}, {"num_frames": (9, 8)}, {"seed": -1}],
)
def test_parameters_that_make_no_sense(tmp_path, parameters):
    with pytest.raises(DataError, match="cannot generate"):
        generate_moving_shapes(tmp_path / "none", **parameters)
    assert not (tmp_path / "none").exists()
