"""The shapes data set: generated COCO instance segmentation, as real files on disk."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import atomic_write
from .contours import mask_to_polygons
from .generated import generate_folder, save_picture, scene_parameters, scenes
from .shape_scenes import CLASS_NAMES, Scene, draw_scene

__all__ = ["ShapesPaths", "generate_shapes_dataset"]

_VERSION = 1  # to be raised whenever the same parameters give other files


@dataclass(frozen=True)
class ShapesPaths:
    """Where the files of a generated data set lie."""

    train_json: str
    train_images: str
    val_json: str
    val_images: str

    @classmethod
    def under(cls, root: str | os.PathLike) -> "ShapesPaths":
        """The paths below the folder `root`."""
        root, annotations = Path(root), Path(root) / "annotations"
        return cls(
            train_json=str(annotations / "instances_train.json"),
            train_images=str(root / "train"),
            val_json=str(annotations / "instances_val.json"),
            val_images=str(root / "val"),
        )


def generate_shapes_dataset(
    root: str | os.PathLike,
    num_train: int = 300,
    num_val: int = 60,
    image_size: tuple[int, int] = (160, 160),
    seed: int = 0,
    force: bool = False,
) -> ShapesPaths:
    """Generate images of textured shapes with COCO annotations, or reuse those that are there.

    The same parameters give the same files. The folder appears whole or not at all; the file
    `dataset.json` in it records the parameters.

    Args:
        root: the folder to create; its parents are created too.
        num_train: training images.
        num_val: held-out images.
        image_size: the least and the greatest side length in pixels; width and height of every
            image are drawn from this range.
        seed: of everything random.
        force: replace a data set with other parameters, or the same one, instead of reusing it.

    Returns:
        the paths of the json files and image folders.

    Raises:
        DataError: the folder holds something else, or shapes with other parameters, or cannot be
            written; or a parameter makes no sense.
    """
    parameters = scene_parameters(__name__, _VERSION, num_train, num_val, image_size, seed)
    generate_folder(root, parameters, _write_splits, force)
    return ShapesPaths.under(root)


# ---- writing ------------------------------------------------------------------------------------


def _write_splits(root: Path, parameters: dict) -> None:
    _write_split(root, "train", parameters)
    _write_split(root, "val", parameters)


def _write_split(root: Path, split: str, parameters: dict) -> None:
    """Write the JPEG files and the COCO json of one split."""
    (root / split).mkdir()
    (root / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for index, scene in enumerate(scenes(parameters, split), start=1):
        pixels, masks = draw_scene(scene)
        record = {"id": index, "file_name": f"{index:06d}.jpg"}
        images.append({**record, "width": scene.width, "height": scene.height})
        save_picture(root / split / record["file_name"], pixels)
        annotations += _annotations(scene, masks, index, len(annotations) + 1)
    coco = {
        "info": {"description": f"generated shapes, {split}", "version": str(_VERSION)},
        "licenses": [],
        "categories": [
            {"id": i + 1, "name": name, "supercategory": "shape"}
            for i, name in enumerate(CLASS_NAMES)
        ],
        "images": images,
        "annotations": annotations,
    }
    with atomic_write(root / "annotations" / f"instances_{split}.json", "w") as file:
        json.dump(coco, file)


def _annotations(scene: Scene, masks: list[np.ndarray], image_id: int, first_id: int) -> list[dict]:
    """COCO annotations of the visible parts of a scene's objects."""
    annotations = []
    for item, mask in zip(scene.objects, masks):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x0, y0, x1, y1 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        annotations.append(
            {
                "id": first_id + len(annotations),
                "image_id": image_id,
                "category_id": item.category + 1,
                "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": mask_to_polygons(mask),
            }
        )
    return annotations
