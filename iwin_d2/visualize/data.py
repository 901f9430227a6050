"""Annotated images before and after augmentation, as the model sees them."""

import copy
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..engine.drawing import class_color
from ..engine.objects import Objects, draw_tile, read_record_image, spread, true_objects
from ..engine.panels import Panel, compose
from ..engine.reproducible import seed_everything
from ..errors import ConfigError, DataError
from .output import number_of, picture_name, save_picture, write_html

__all__ = ["choose_records", "draw_data", "to_rgb"]


def choose_records(
    records: Sequence[dict], image_ids: Sequence[int | str] | None, max_images: int
) -> list[dict]:
    """The records of the ids; `max_images` spread evenly over the data set for None.

    Raises:
        DataError: there are no records, or none of that id.
    """
    if not records:
        raise DataError("There are no images to draw: the data set is empty.")
    if image_ids is None:
        return spread(records, max_images)
    by_id = {str(record["image_id"]): record for record in records}
    unknown = [name for name in image_ids if str(name) not in by_id]
    if unknown:
        known = sorted((record["image_id"] for record in records), key=lambda i: (str(type(i)), i))
        raise DataError(
            f"The data set has no image of id {unknown[0]}: its {len(by_id)} images have ids from "
            f"{known[0]} to {known[-1]} (images without objects may have been left out)."
        )
    return [by_id[str(name)] for name in image_ids]


def draw_data(
    records: Sequence[dict],
    mapper: Callable[[dict], dict | None],
    class_names: Sequence[str],
    folder: str | os.PathLike,
    *,
    draws: int = 3,
    seed: int = 0,
    image_format: str = "RGB",
    tile_size: int = 480,
) -> Path:
    """Draw images with their annotations, and what a data mapper makes of them.

    Args:
        records: to draw, in the framework's format, with annotations.
        mapper: makes the model's input of a record: "image", Tensor[C, h, w], and in training
            "instances".
        class_names: of the data set.
        folder: to write into, a picture for each image and index.html; made if missing.
        draws: how many augmented versions of each image; they differ where augmentation is random.
        seed: of the augmentations.
        image_format: of the mapper's images, "RGB" or "BGR".
        tile_size: pixels of the longer side of each drawing.

    Returns:
        the path of index.html.

    Raises:
        DataError: an image cannot be read or augmented, or the folder cannot be written to.
        ConfigError: the mapper's images are of another format, or it leaves an image out.
    """
    folder, shown = Path(folder), []
    for number, record in enumerate(records, start=1):
        truth, crowds = true_objects(record), true_objects(record, crowds=True)
        image = read_record_image(record)
        panels = [_panel("as annotated", image, truth, class_names, tile_size)]
        classes = set(truth.classes)
        for draw in range(draws):
            seed_everything(seed, number, draw)
            pixels, objects = _map(mapper, record, image_format)
            title = "as the model sees it" + (f", draw {draw + 1}" if draws > 1 else "")
            panels.append(_panel(title, pixels, objects, class_names, tile_size))
            classes.update(objects.classes)
        heading = f"{os.path.basename(record['file_name'])} (image {record['image_id']})"
        remarks = [f"{number_of(crowds, 'crowd')}, on which nothing is trained: not drawn."]
        picture = picture_name(number, record["file_name"])
        sheet = compose(
            panels,
            heading=heading,
            remarks=remarks if len(crowds) else (),
            legend=[(class_names[c], class_color(c)) for c in sorted(classes)],
        )
        save_picture(sheet, folder / picture)
        shown.append((picture, heading))
    remark = (
        "Left, the image as it is annotated; beside it, what the data mapper makes of it: the "
        "model's input before normalisation and padding, all drawn at one size."
    )
    return write_html(folder, "Data as the model sees it", remark, shown)


def to_rgb(image, image_format: str) -> np.ndarray:
    """A mapper's image, Tensor[3, h, w], as RGB, uint8 [h, w, 3].

    Raises:
        ConfigError: its channels are not "RGB" or "BGR".
    """
    if image_format not in ("RGB", "BGR") or image.shape[0] != 3:
        raise ConfigError(
            f"The data mapper makes images of {image.shape[0]} channels in the format "
            f"{image_format}: only RGB and BGR can be drawn."
        )
    pixels = image.cpu().numpy().transpose(1, 2, 0)
    pixels = pixels if image_format == "RGB" else pixels[:, :, ::-1]
    return np.ascontiguousarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _map(mapper: Callable, record: dict, image_format: str) -> tuple[np.ndarray, Objects]:
    """What the mapper makes of a record: the image and its objects, none where it gives none."""
    mapped = mapper(copy.deepcopy(record))
    if mapped is None:
        raise ConfigError(
            f"The data mapper leaves out {record['file_name']} (image {record['image_id']}), so "
            "there is nothing to draw: choose other images."
        )
    instances = mapped.get("instances")
    pixels = to_rgb(mapped["image"], image_format)
    if instances is None:
        return pixels, Objects([], np.zeros((0, 4)))
    masks = instances.gt_masks if instances.has("gt_masks") else None
    boxes = instances.gt_boxes.tensor.numpy()
    return pixels, Objects(instances.gt_classes.tolist(), boxes, masks)


def _panel(
    title: str, image: np.ndarray, objects: Objects, names: Sequence[str], tile_size: int
) -> Panel:
    height, width = image.shape[:2]
    text = f"{title}: {width} x {height}, {number_of(objects, 'object')}"
    return Panel(text, draw_tile(image, objects, names, tile_size))
