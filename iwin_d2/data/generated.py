"""What the generated data sets of several tasks share: parameters, scenes, a folder made whole."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError
from ..files import atomic_write
from .shape_scenes import Scene, compose_scene

__all__ = ["generate_folder", "save_picture", "scene_parameters", "scenes"]

_MARKER = "dataset.json"
_MAX_SIDE = 4096  # pixels; drawing takes some hundred bytes for each
_SPLITS = {"train": 0, "val": 1}  # each with random numbers of its own


def scene_parameters(
    generator: str,
    version: int,
    num_train: int,
    num_val: int,
    image_size: tuple[int, int],
    seed: int,
) -> dict:
    """The parameters of a data set of scenes, as `dataset.json` records them.

    Args:
        generator: the module that writes it.
        version: to be raised whenever the same parameters give other files.
        num_train: training images.
        num_val: held-out images.
        image_size: the least and the greatest side length in pixels.
        seed: of everything random.

    Raises:
        DataError: a parameter makes no sense.
    """
    sides_fit = 48 <= image_size[0] <= image_size[1] <= _MAX_SIDE
    if min(num_train, num_val) < 1 or not sides_fit or seed < 0:
        raise DataError(
            f"cannot generate {num_train} training and {num_val} held-out images with sides of "
            f"{image_size[0]} to {image_size[1]} pixels and seed {seed}: ask for at least one of "
            f"each, for sides of 48 to {_MAX_SIDE} pixels, the lesser first, and a seed of at "
            "least 0."
        )
    return {
        "generator": generator,
        "version": version,
        "num_train": num_train,
        "num_val": num_val,
        "image_size": list(image_size),
        "seed": seed,
    }


def scenes(parameters: dict, split: str, **options: Any) -> Iterator[Scene]:
    """Yield the scenes of the split "train" or "val", the same for the same parameters.

    Args:
        parameters: of the data set.
        split: "train" or "val".
        **options: of `compose_scene`.
    """
    least, greatest = parameters["image_size"]
    for index in range(parameters[f"num_{split}"]):
        rng = np.random.default_rng([parameters["seed"], _SPLITS[split], index])
        width, height = (int(side) for side in rng.integers(least, greatest + 1, 2))
        yield compose_scene(rng, width, height, **options)


def save_picture(path: Path, pixels: np.ndarray) -> None:
    """Write an image uint8 [H, W, 3] as JPEG."""
    Image.fromarray(pixels).save(path, quality=92)


def generate_folder(
    root: str | os.PathLike,
    parameters: dict,
    write: Callable[[Path, dict], None],
    force: bool = False,
) -> None:
    """Generate a folder, whole or not at all, or reuse one of the same parameters.

    Args:
        root: the folder; its parents are created, too.
        parameters: what the files depend on; "generator" names the kind of data set.
        write: is called with an empty folder and the parameters, and writes the files.
        force: replace a data set of that kind instead of reusing it.

    Raises:
        DataError: the folder holds something else, or a data set of other parameters, or cannot be
            written.
    """
    root = Path(root)
    try:
        if _may_write(root, parameters, force):
            _generate(root, parameters, write)
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"the data set {root} cannot be written ({reason}): choose a folder that you may "
            "write to, on a disk with room."
        ) from error


def _generate(root: Path, parameters: dict, write: Callable[[Path, dict], None]) -> None:
    """Write the data set under another name, then give it its own."""
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}.", suffix=".tmp"))
    try:
        temporary.chmod(0o755)  # mkdtemp makes private folders
        write(temporary, parameters)
        with atomic_write(temporary / _MARKER, "w") as file:
            json.dump(parameters, file, indent=2)
        _move_into_place(temporary, root, parameters)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_marker(root: Path, generator: str) -> dict | None:
    """The parameters of the data set in a folder, None where there is none of that generator."""
    try:
        marker = json.loads((root / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) and marker.get("generator") == generator else None


def _may_write(root: Path, parameters: dict, force: bool) -> bool:
    """True to generate, False to reuse what is there; an error where neither is right."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return True
    found = _read_marker(root, parameters["generator"])
    if found is None:
        raise DataError(
            f"{root} exists and is not a generated shapes data set of this task: nothing was "
            "written; choose another folder."
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
    if _read_marker(root, parameters["generator"]) is not None:
        retired = temporary.with_suffix(".old")
        root.rename(retired)
        temporary.rename(root)
        shutil.rmtree(retired)
        return
    try:
        temporary.rename(root)
    except OSError:
        # Another process may have generated the same data set meanwhile.
        if _read_marker(root, parameters["generator"]) != parameters:
            raise
