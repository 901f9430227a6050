"""The shapes data set: generated COCO instance segmentation, as real files on disk."""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError
from ..files import atomic_write
from .contours import mask_to_polygons
from .shape_scenes import CLASS_NAMES, Scene, compose_scene, draw_scene

__all__ = ["ShapesPaths", "generate_shapes_dataset"]

_MARKER = "dataset.json"
_MAX_SIDE = 4096  # pixels; drawing takes some hundred bytes for each
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
    root = Path(root)
    sides_fit = 48 <= image_size[0] <= image_size[1] <= _MAX_SIDE
    if min(num_train, num_val) < 1 or not sides_fit or seed < 0:
        raise DataError(
            f"cannot generate {num_train} training and {num_val} held-out images with sides of "
            f"{image_size[0]} to {image_size[1]} pixels and seed {seed}: ask for at least one of "
            f"each, for sides of 48 to {_MAX_SIDE} pixels, the lesser first, and a seed of at "
            "least 0."
        )
    parameters = {
        "generator": "iwin_d2.data.shapes",
        "version": _VERSION,
        "num_train": num_train,
        "num_val": num_val,
        "image_size": list(image_size),
        "seed": seed,
    }
    try:
        if _may_write(root, parameters, force):
            _generate(root, parameters)
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"the data set {root} cannot be written ({reason}): choose a folder that you may "
            "write to, on a disk with room."
        ) from error
    return ShapesPaths.under(root)


def _generate(root: Path, parameters: dict) -> None:
    """Write the data set under another name, then give it its own."""
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}.", suffix=".tmp"))
    image_size, seed = parameters["image_size"], parameters["seed"]
    try:
        temporary.chmod(0o755)  # mkdtemp makes private folders
        _write_split(temporary, "train", parameters["num_train"], image_size, [seed, 0])
        _write_split(temporary, "val", parameters["num_val"], image_size, [seed, 1])
        with atomic_write(temporary / _MARKER, "w") as file:
            json.dump(parameters, file, indent=2)
        _move_into_place(temporary, root, parameters)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


# ---- whole or not at all ------------------------------------------------------------------------


def _read_marker(root: Path) -> dict | None:
    """The parameters of the data set in a folder, None where there is none of ours."""
    try:
        marker = json.loads((root / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(marker, dict) and marker.get("generator") == "iwin_d2.data.shapes"
    return marker if ours else None


def _may_write(root: Path, parameters: dict, force: bool) -> bool:
    """True to generate, False to reuse what is there; an error where neither is right."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return True
    found = _read_marker(root)
    if found is None:
        raise DataError(
            f"{root} exists and is not a generated shapes data set: nothing was written; "
            "choose another folder."
        )
    if force:
        return True
    if found != parameters:
        names = [key for key in parameters if found.get(key) != parameters[key]]
        other = ", ".join(f"{key} {found.get(key)} instead of {parameters[key]}" for key in names)
        raise DataError(
            f"{root} holds a shapes data set with other parameters ({other}): nothing was written; "
            "choose another folder, or replace it with force=True (--force on the command line)."
        )
    return False


def _move_into_place(temporary: Path, root: Path, parameters: dict) -> None:
    """Give the finished folder its name; what had the name before goes."""
    if _read_marker(root) is not None:
        retired = temporary.with_suffix(".old")
        root.rename(retired)
        temporary.rename(root)
        shutil.rmtree(retired)
        return
    try:
        temporary.rename(root)
    except OSError:
        # Another process may have generated the same data set meanwhile.
        if _read_marker(root) != parameters:
            raise


# ---- writing ------------------------------------------------------------------------------------


def _write_split(
    root: Path, split: str, count: int, image_size: tuple[int, int], seed: list[int]
) -> None:
    """Write the JPEG files and the COCO json of one split."""
    (root / split).mkdir()
    (root / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for index in range(count):
        rng = np.random.default_rng([*seed, index])
        width, height = (int(side) for side in rng.integers(image_size[0], image_size[1] + 1, 2))
        scene = compose_scene(rng, width, height)
        pixels, masks = draw_scene(scene)
        record = {"id": index + 1, "file_name": f"{index + 1:06d}.jpg"}
        images.append({**record, "width": width, "height": height})
        Image.fromarray(pixels).save(root / split / record["file_name"], quality=92)
        annotations += _annotations(scene, masks, index + 1, len(annotations) + 1)
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
