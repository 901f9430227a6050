"""The shapes data set of image classification: generated images in class folders."""

import os
from dataclasses import dataclass
from pathlib import Path

from .generated import generate_folder, save_picture, scene_parameters, scenes
from .shape_scenes import CLASS_NAMES, draw_scene

__all__ = ["ClassFolders", "generate_classification_dataset"]

_SIZES = (0.4, 0.8)  # of the circle around a shape, as a part of the image's short side
_VERSION = 1  # to be raised whenever the same parameters give other files


@dataclass(frozen=True)
class ClassFolders:
    """Where the class folders of a generated data set lie."""

    train: str
    val: str

    @classmethod
    def under(cls, root: str | os.PathLike) -> "ClassFolders":
        """The paths below the folder `root`."""
        return cls(train=str(Path(root) / "train"), val=str(Path(root) / "val"))


def generate_classification_dataset(
    root: str | os.PathLike,
    num_train: int = 1000,
    num_val: int = 200,
    image_size: tuple[int, int] = (64, 64),
    seed: int = 0,
    force: bool = False,
) -> ClassFolders:
    """Generate images of one textured shape each, or reuse those that are there.

    JPEG images lie in train/<class> and val/<class>. Colours, textures, size and place say nothing
    about the class. The same parameters give the same files. The folder appears whole or not at
    all; the file `dataset.json` in it records the parameters.

    Args:
        root: the folder to create; its parents are created too.
        num_train: training images.
        num_val: held-out images.
        image_size: the least and the greatest side length in pixels; width and height of every
            image are drawn from this range.
        seed: of everything random.
        force: replace a data set with other parameters, or the same one, instead of reusing it.

    Returns:
        the paths of the class folders.

    Raises:
        DataError: the folder holds something else, or shapes with other parameters, or cannot be
            written; or a parameter makes no sense.
    """
    parameters = scene_parameters(__name__, _VERSION, num_train, num_val, image_size, seed)
    generate_folder(root, parameters, _write, force)
    return ClassFolders.under(root)


def _write(root: Path, parameters: dict) -> None:
    for split in ("train", "val"):
        for name in CLASS_NAMES:
            (root / split / name).mkdir(parents=True)
        found = scenes(parameters, split, max_objects=1, sizes=_SIZES)
        for index, scene in enumerate(found, start=1):
            pixels, _ = draw_scene(scene)
            name = CLASS_NAMES[scene.objects[0].category]
            save_picture(root / split / name / f"{index:06d}.jpg", pixels)
