"""The shapes data set of semantic segmentation: generated images and label images, as real files.

The scenes are those of `shapes`, and the layout is ADE20K's; but the background is a class, 0.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import atomic_write
from .generated import generate_folder, save_picture, scene_parameters, scenes
from .shape_scenes import CLASS_NAMES, Scene, draw_scene

__all__ = ["SEGMENT_NAMES", "SegmentationPaths", "generate_segmentation_dataset"]

SEGMENT_NAMES = ("background", *CLASS_NAMES)

_VERSION = 1  # to be raised whenever the same parameters give other files
_FOLDERS = {"train": "training", "val": "validation"}


@dataclass(frozen=True)
class SegmentationPaths:
    """Where the files of a generated data set lie."""

    train_images: str
    train_labels: str
    val_images: str
    val_labels: str
    classes: str

    @classmethod
    def under(cls, root: str | os.PathLike) -> "SegmentationPaths":
        """The paths below the folder `root`."""
        images, labels = Path(root) / "images", Path(root) / "annotations"
        return cls(
            train_images=str(images / _FOLDERS["train"]),
            train_labels=str(labels / _FOLDERS["train"]),
            val_images=str(images / _FOLDERS["val"]),
            val_labels=str(labels / _FOLDERS["val"]),
            classes=str(Path(root) / "classes.txt"),
        )


def generate_segmentation_dataset(
    root: str | os.PathLike,
    num_train: int = 300,
    num_val: int = 60,
    image_size: tuple[int, int] = (160, 160),
    seed: int = 0,
    force: bool = False,
    *,
    max_objects: int = 2,
    sizes: tuple[float, float] = (0.4, 0.8),
) -> SegmentationPaths:
    """Generate images of textured shapes with label images, or reuse those that are there.

    JPEG images lie in images/training and images/validation, PNG label images of the same names in
    annotations/training and annotations/validation: 0 is the background, 1 to 4 the shapes, in the
    order of classes.txt, and nothing is ignored. The same parameters give the same files; with
    max_objects=6 and sizes=(0.11, 0.5), they are of the scenes of `generate_shapes_dataset`. The
    folder appears whole or not at all; the file `dataset.json` in it records the parameters.

    Args:
        root: the folder to create; its parents are created too.
        num_train: training images.
        num_val: held-out images.
        image_size: the least and the greatest side length in pixels; width and height of every
            image are drawn from this range.
        seed: of everything random.
        force: replace a data set with other parameters, or the same one, instead of reusing it.
        max_objects: an image has 1 to so many shapes.
        sizes: least and greatest diameter of a shape, as a part of the image's short side.

    Returns:
        the paths of the image and label folders and of the class file.

    Raises:
        DataError: the folder holds something else, or shapes with other parameters, or cannot be
            written; or a parameter makes no sense.
    """
    parameters = scene_parameters(__name__, _VERSION, num_train, num_val, image_size, seed)
    parameters |= {"max_objects": max_objects, "sizes": list(sizes)}
    generate_folder(root, parameters, _write, force)
    return SegmentationPaths.under(root)


def _write(root: Path, parameters: dict) -> None:
    with atomic_write(root / "classes.txt", "w") as file:
        file.writelines(f"{name}\n" for name in SEGMENT_NAMES)
    options = {"max_objects": parameters["max_objects"], "sizes": tuple(parameters["sizes"])}
    for split, folder in _FOLDERS.items():
        images, labels = root / "images" / folder, root / "annotations" / folder
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for index, scene in enumerate(scenes(parameters, split, **options), start=1):
            pixels, masks = draw_scene(scene)
            save_picture(images / f"{index:06d}.jpg", pixels)
            Image.fromarray(_labels(scene, masks)).save(labels / f"{index:06d}.png")


def _labels(scene: Scene, masks: list[np.ndarray]) -> np.ndarray:
    """The class of every pixel, uint8 [H, W], from the visible parts of the objects."""
    labels = np.zeros((scene.height, scene.width), dtype=np.uint8)
    for item, mask in zip(scene.objects, masks):
        labels[mask] = item.category + 1
    return labels
