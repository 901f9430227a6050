"""The moving shapes data set: generated video files whose classes only motion tells."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import DataError
from ...files import atomic_write
from ..generated import generate_folder
from .encode import find_encoder, write_clip
from .moving_shapes import MOTIONS, compose_moving_scene, draw_moving_scene

__all__ = ["MovingShapesPaths", "generate_moving_shapes"]

_VERSION = 1  # to be raised whenever the same parameters give other files
_SPLITS = {"train": 0, "val": 1}  # each with random numbers of its own


@dataclass(frozen=True)
class MovingShapesPaths:
    """Where the files of a generated data set lie: `path label` lists, and the classes' names."""

    root: str
    train_list: str
    val_list: str
    classes: str

    @classmethod
    def under(cls, root: str | os.PathLike) -> "MovingShapesPaths":
        """The paths below the folder `root`, which the paths in the lists start from."""
        files = (os.path.join(root, name) for name in ("train.txt", "val.txt", "classes.txt"))
        return cls(os.fspath(root), *files)


def generate_moving_shapes(
    root: str | os.PathLike,
    num_train: int = 300,
    num_val: int = 60,
    size: int = 96,
    num_frames: tuple[int, int] = (32, 48),
    seed: int = 0,
    force: bool = False,
) -> MovingShapesPaths:
    """Generate clips of shapes that all move along one axis, turn or rest, or reuse what is there.

    The classes are those of `MOTIONS`, in turn. No frame by itself gives its class away: places and
    angles are equally distributed over all that there are, shapes that leave on one side come in on
    the other, so that a frame of any class is as likely in any other; and where everything starts,
    what it looks like and how fast it is does not depend on the class. Shapes go left or right, up
    or down, turn one way or the other within a class: a flipped clip keeps its class.

    The same parameters give the same files, H.264 where FFmpeg can encode it, else MPEG-4. The
    folder appears whole or not at all; `dataset.json` in it records the parameters.

    Args:
        root: the folder to create; its parents are created, too.
        num_train: training clips.
        num_val: held-out clips.
        size: side of the frames in pixels, even.
        num_frames: the least and the greatest number of a clip's frames, at 25 a second.
        seed: of everything random.
        force: replace a data set with other parameters, or the same one, instead of reusing it.

    Returns:
        the paths of the lists and of the classes' names.

    Raises:
        DataError: the folder holds something else, or a data set with other parameters, or cannot
            be written; or a parameter makes no sense.
        ConfigError: PyAV is not installed.
    """
    least, greatest = num_frames
    if min(num_train, num_val) < 1 or not 1 <= least <= greatest <= 10_000 or seed < 0:
        raise DataError(
            f"cannot generate {num_train} training and {num_val} held-out clips of {least} to "
            f"{greatest} frames with seed {seed}: ask for at least one of each, for 1 to 10000 "
            "frames, the lesser number first, and a seed of at least 0."
        )
    if size % 2 or not 32 <= size <= 2048:
        raise DataError(
            f"cannot generate clips with sides of {size} pixels: ask for an even number from 32 to "
            "2048."
        )
    parameters = {
        "generator": "iwin_d2.data.video.shapes",
        "version": _VERSION,
        "encoder": find_encoder(),
        "num_train": num_train,
        "num_val": num_val,
        "size": size,
        "num_frames": [least, greatest],
        "seed": seed,
    }
    generate_folder(root, parameters, _write, force)
    return MovingShapesPaths.under(root)


def _write(root: Path, parameters: dict) -> None:
    for split in _SPLITS:
        (root / split).mkdir()
        labels = [i % len(MOTIONS) for i in range(parameters[f"num_{split}"])]
        for index, label in enumerate(labels):
            _write_one(root / split / f"{index:05d}.mp4", parameters, split, index, label)
        with atomic_write(root / f"{split}.txt", "w") as file:
            file.writelines(f"{split}/{i:05d}.mp4 {label}\n" for i, label in enumerate(labels))
    with atomic_write(root / "classes.txt", "w") as file:
        file.writelines(f"{name}\n" for name in MOTIONS)


def _write_one(path: Path, parameters: dict, split: str, index: int, label: int) -> None:
    rng = np.random.default_rng([parameters["seed"], _SPLITS[split], index])
    count = int(rng.integers(*parameters["num_frames"], endpoint=True))
    scene, motion = compose_moving_scene(rng), list(MOTIONS)[label]
    size = parameters["size"]
    write_clip(path, (draw_moving_scene(scene, motion, n, size) for n in range(count)))
