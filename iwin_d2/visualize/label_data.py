"""Images with their labels before and after augmentation, as the model sees them."""

import copy
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..engine.drawing import Color
from ..engine.objects import read_record_image
from ..engine.panels import Panel, compose
from ..engine.reproducible import seed_everything
from ..engine.segment_drawing import HATCHED, draw_segments, segment_color, share_text
from ..errors import ConfigError
from .data import to_rgb
from .label_maps import IGNORED, true_labels
from .output import picture_name, save_picture, write_html

__all__ = ["draw_label_data", "legend_of"]

_PADDING: Color = (0.84, 0.84, 0.87)
_MOST = 40  # classes in a legend


def draw_label_data(
    records: Sequence[dict],
    mapper: Callable[[dict], dict | None],
    class_names: Sequence[str],
    folder: str | os.PathLike,
    *,
    draws: int = 3,
    seed: int = 0,
    image_format: str = "RGB",
    ignore_value: int = 255,
    tile_size: int = 400,
) -> Path:
    """Draw images above their label images, and what a data mapper makes of them.

    Args:
        records: to draw, of a data set of semantic segmentation.
        mapper: makes the model's input of a record: "image", Tensor[C, h, w], and in training
            "sem_seg", integer Tensor[h, w].
        class_names: of the data set.
        folder: to write into, a picture for each image and index.html; made if missing.
        draws: how many augmented versions of each image; they differ where augmentation is random.
        seed: of the augmentations.
        image_format: of the mapper's images, "RGB" or "BGR".
        ignore_value: of pixels without a class in "sem_seg".
        tile_size: pixels of the longer side of each drawing.

    Returns:
        the path of index.html.

    Raises:
        DataError: an image or its labels cannot be read or augmented, or the folder cannot be
            written to.
        ConfigError: the mapper's images are of another format, or it leaves an image out.
    """
    folder, shown = Path(folder), []
    for number, record in enumerate(records, start=1):
        image, labels = read_record_image(record), true_labels(record)
        maps, padded = [labels], False
        columns = [_column("as labelled", image, labels, tile_size)]
        for draw in range(draws):
            seed_everything(seed, number, draw)
            pixels, labels = _map(mapper, record, image_format, ignore_value)
            title = "model's input" + (f" {draw + 1}" if draws > 1 else "")
            padding = _padding(pixels, labels)
            columns.append(_column(title, pixels, labels, tile_size, padding))
            padded = padded or any(padding)
            if labels is not None:
                maps.append(labels[: labels.shape[0] - padding[0], : labels.shape[1] - padding[1]])
        legend, remarks = legend_of(maps, class_names)
        if padded:
            legend.append(("padding", _PADDING))
        heading = f"{os.path.basename(record['file_name'])} (image {record['image_id']})"
        picture = picture_name(number, record["file_name"])
        rows = [panel for row in zip(*columns) for panel in row]
        text = {"heading": heading, "legend": legend, "remarks": remarks}
        sheet = compose(rows, columns=len(columns), **text)
        save_picture(sheet, folder / picture)
        shown.append((picture, heading))
    remark = (
        "Left, the image above its label image; beside them, what the data mapper makes of both: "
        "the model's input before normalisation, all drawn at one size. What is hatched has no "
        "class, and nothing is learned from it."
    )
    return write_html(folder, "Data as the model sees it", remark, shown)


def legend_of(
    maps: Sequence[np.ndarray], names: Sequence[str]
) -> tuple[list[tuple[str, Color]], list[str]]:
    """A legend of the classes that occur in label maps, the largest first.

    Args:
        maps: class numbers and `IGNORED`.
        names: by class number.

    Returns:
        names with colours, and remarks on what is left out.
    """
    values, counts = np.unique(np.concatenate([m.ravel() for m in maps]), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    classes = [int(value) for value in values[order] if value != IGNORED]
    legend = [(_name(c, names), segment_color(c)) for c in classes[:_MOST]]
    if IGNORED in values:
        legend.append(("hatched: no class, ignored", HATCHED))
    more = len(classes) - _MOST
    return legend, [f"Of {len(classes)} classes, the largest."] if more > 0 else []


def _name(number: int, names: Sequence[str]) -> str:
    return str(names[number]) if number < len(names) else f"class {number}"


def _map(
    mapper: Callable, record: dict, image_format: str, ignore_value: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """What the mapper makes of a record: the image and its labels, None where it gives none."""
    mapped = mapper(copy.deepcopy(record))
    if mapped is None:
        raise ConfigError(
            f"The data mapper leaves out {record['file_name']} (image {record['image_id']}), so "
            "there is nothing to draw: choose other images."
        )
    pixels, labels = to_rgb(mapped["image"], image_format), mapped.get("sem_seg")
    if labels is None:
        return pixels, None
    labels = labels.numpy()
    return pixels, np.where(labels == ignore_value, IGNORED, labels).astype(np.int32)


def _padding(pixels: np.ndarray, labels: np.ndarray | None) -> tuple[int, int]:
    """Rows at the bottom and columns on the right that are of one colour and without a class."""
    if labels is None:
        return 0, 0
    empty = (labels == IGNORED) & (pixels == pixels[-1, -1]).all(2)
    if empty.all():  # there is nothing to tell it from
        return 0, 0
    return tuple(int(np.argmin(empty.all(axis)[::-1])) for axis in (1, 0))


def _column(
    title: str,
    image: np.ndarray,
    labels: np.ndarray | None,
    tile_size: int,
    padding: tuple[int, int] = (0, 0),
) -> tuple[Panel, Panel]:
    """An image, and its labels on it."""
    (height, width), (bottom, right) = image.shape[:2], padding
    scale = tile_size / max(height, width)
    blank = np.zeros((height, width), dtype=np.int32)
    plain = Image.fromarray(draw_segments(image, blank, scale=scale, opacity=0.0))
    title = f"{title}: {width} x {height}"
    if labels is None:
        return Panel(title, plain), Panel("no labels", plain)
    if any(padding):
        title += f", padded by {right} x {bottom}"
    inside = labels[: height - bottom, : width - right]
    count = len(np.setdiff1d(inside, [IGNORED]))
    text = "1 class" if count == 1 else f"{count} classes"
    if (inside == IGNORED).any():
        text += f", {share_text(float((inside == IGNORED).mean()))} ignored"
    drawn = Image.fromarray(draw_segments(image, labels, scale=scale))
    color = tuple(round(255 * value) for value in _PADDING)
    edge = round((width - right) * scale), round((height - bottom) * scale)
    if right:
        drawn.paste(color, (edge[0], 0, *drawn.size))
    if bottom:
        drawn.paste(color, (0, edge[1], *drawn.size))
    return Panel(title, plain), Panel(text, drawn)
