"""Pictures for people: predictions beside ground truth, many images on one sheet."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .d2.data import detection_utils
from .d2.structures import BoxMode
from .d2.utils.visualizer import Visualizer
from .data.annotation_check import decode_rle_counts
from .data.coco_json import read_coco_json
from .engine.drawing import class_color
from .errors import DataError
from .files import atomic_write

__all__ = ["class_colors", "contact_sheet", "load_results"]

_OF_METADATA = ("thing_classes", "thing_dataset_id_to_contiguous_id")
_GAP = 6  # pixels between tiles
_PAIR_GAP = 24  # between one pair of tiles and the next
_PAPER, _INK, _FAINT = (255, 255, 255), (25, 25, 30), (110, 110, 120)


def contact_sheet(
    records: Sequence[dict],
    results: dict[int, list[dict]],
    metadata,
    output: str | os.PathLike,
    *,
    max_images: int = 12,
    score_threshold: float = 0.5,
    pairs_per_row: int = 3,
    tile_size: int = 320,
) -> str:
    """Draw ground truth beside predictions for images spread evenly over a data set.

    Args:
        records: of the data set, in the framework's format, with annotations.
        results: predictions by image id, as from `load_results`.
        metadata: of the data set: `thing_classes` and `thing_dataset_id_to_contiguous_id`.
        output: the PNG file to write.
        max_images: how many images to draw at most.
        score_threshold: predictions below it are left out.
        pairs_per_row: how many images to draw side by side.
        tile_size: pixels of the longer side of each drawing; small images are enlarged to it.

    Returns:
        the path of the file.

    Raises:
        DataError: there are no records, the metadata lacks the classes, an image cannot be read, or
            the output cannot be written.
    """
    if not records:
        raise DataError(f"there are no images to draw on {output}: the data set is empty.")
    count = max(min(max_images, len(records)), 1)
    chosen = [records[round(i)] for i in np.linspace(0, len(records) - 1, count)]
    if not all(hasattr(metadata, name) for name in _OF_METADATA):
        raise DataError(
            f"the data set of {output} does not say its classes: set {' and '.join(_OF_METADATA)} "
            "in its metadata."
        )
    colors = class_colors(len(metadata.thing_classes))
    pairs, legend_classes = [], set()
    for record in chosen:
        found = results.get(record["image_id"], [])
        found = [item for item in found if item["score"] >= score_threshold]
        truth, predicted = _truth(record), _predictions(found, metadata)
        legend_classes.update(truth["classes"], predicted["classes"])
        image = _read_image(record)
        tiles = [
            _tile(image, objects, metadata, colors, tile_size) for objects in (truth, predicted)
        ]
        name = os.path.basename(record["file_name"])
        caption = f"{name}: {_count(truth, 'object')}, {_count(predicted, 'prediction')}"
        pairs.append((tiles, caption))
    legend = [(metadata.thing_classes[c], colors[c]) for c in sorted(legend_classes)]
    titles = ("ground truth", f"predictions, score {score_threshold:g} or more")
    sheet = _lay_out(pairs, titles, legend, min(pairs_per_row, count), tile_size)
    try:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(output) as file:
            sheet.save(file, format="PNG")
    except OSError as error:
        raise DataError(
            f"the picture {output} cannot be written ({error.strerror or error}): check that the "
            "folder exists and may be written to."
        ) from error
    return str(output)


def load_results(results_json: str | os.PathLike) -> dict[int, list[dict]]:
    """Read predictions in COCO's results format, by image id.

    Raises:
        DataError: the file cannot be read or holds something else.
    """
    items = read_coco_json(results_json, what="results file")
    needed = {"image_id", "category_id", "bbox", "score"}
    if not isinstance(items, list) or not all(
        isinstance(item, dict) and needed <= item.keys() for item in items
    ):
        raise DataError(
            f"{results_json} is not in COCO's results format: a list of objects with image_id, "
            "category_id, bbox and score, as evaluation writes coco_instances_results.json."
        )
    results: dict[int, list[dict]] = {}
    for number, item in enumerate(items, start=1):
        problem = _problem(item)
        if problem:
            raise DataError(
                f"{results_json}: result number {number} (image {item['image_id']!r}) has "
                f"{problem}: write the file anew, as evaluation does."
            )
        results.setdefault(item["image_id"], []).append(item)
    return results


def _problem(item: dict) -> str | None:
    """What keeps a result from being drawn."""
    numbers = [*item["bbox"], item["score"]] if isinstance(item["bbox"], list) else []
    if len(numbers) != 5 or not all(type(value) in (int, float) for value in numbers):
        return "no bbox of four numbers, or no number as its score"
    if not all(map(math.isfinite, numbers)):
        return "numbers that are not finite"
    if type(item["image_id"]) is not int or type(item["category_id"]) is not int:
        return "no whole numbers as image_id and category_id"
    mask = item.get("segmentation")
    if isinstance(mask, dict) and not _decodes(mask):
        return "a damaged mask"
    return None


def _decodes(rle: dict) -> bool:
    """Whether a compressed mask is whole; pycocotools does not look."""
    counts, size = rle.get("counts"), rle.get("size")
    if not isinstance(counts, str) or not isinstance(size, list) or len(size) != 2:
        return False
    lengths = decode_rle_counts(counts)
    return lengths is not None and sum(lengths) == size[0] * size[1]


def class_colors(count: int) -> list[tuple[float, float, float]]:
    """One vivid colour a class, RGB in [0, 1]; neighbours in the list are far apart in hue."""
    return [class_color(index) for index in range(count)]


# ---- what to draw on one image ------------------------------------------------------------------


def _truth(record: dict) -> dict:
    """The objects of a record: classes, boxes float[N, 4] (x0, y0, x1, y1), masks, scores."""
    annotations = [a for a in record.get("annotations", ()) if not a.get("iscrowd", 0)]
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    return {
        "classes": [a["category_id"] for a in annotations],
        "boxes": np.array(boxes, dtype=float).reshape(-1, 4),
        "masks": _all_or_none([a.get("segmentation") for a in annotations]),
        "scores": None,
    }


def _predictions(items: list[dict], metadata) -> dict:
    """Predictions of one image, in the same form as `_truth`."""
    to_class = metadata.thing_dataset_id_to_contiguous_id
    unknown = [item for item in items if item["category_id"] not in to_class]
    if unknown:
        raise DataError(
            f"the results hold category_id {unknown[0]['category_id']} (image "
            f"{unknown[0]['image_id']}), which the data set does not have: they belong to another "
            "data set."
        )
    boxes = np.array([item["bbox"] for item in items], dtype=float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return {
        "classes": [to_class[item["category_id"]] for item in items],
        "boxes": boxes,
        "masks": _all_or_none([item.get("segmentation") for item in items]),
        "scores": [item["score"] for item in items],
    }


def _all_or_none(masks: list) -> list | None:
    return masks if masks and all(masks) else None


def _count(objects: dict, noun: str) -> str:
    count = len(objects["classes"])
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _read_image(record: dict) -> np.ndarray:
    try:
        return detection_utils.read_image(record["file_name"], format="RGB")
    except (OSError, ValueError) as error:
        raise DataError(f"image {record['file_name']} cannot be read: {error}.") from error


def _tile(image: np.ndarray, objects: dict, metadata, colors: list, tile_size: int) -> Image.Image:
    """The image with its objects, the longer side `tile_size` pixels."""
    labels = [metadata.thing_classes[c] for c in objects["classes"]]
    if objects["scores"] is not None:
        labels = [f"{name} {score:.2f}" for name, score in zip(labels, objects["scores"])]
    visualizer = Visualizer(image, metadata, scale=tile_size / max(image.shape[:2]))
    drawn = visualizer.get_output()
    if labels:
        drawn = visualizer.overlay_instances(
            boxes=objects["boxes"],
            masks=objects["masks"],
            labels=labels,
            assigned_colors=[colors[c] for c in objects["classes"]],
            alpha=0.45,
        )
    return Image.fromarray(drawn.get_image())


# ---- the sheet ----------------------------------------------------------------------------------


def _lay_out(
    pairs: list, titles: tuple[str, str], legend: list, pairs_per_row: int, tile_size: int
) -> Image.Image:
    """Put the pairs of tiles on one sheet: titles above the columns, the legend below."""
    title_font, font = _font(18), _font(14)
    rows = [pairs[i : i + pairs_per_row] for i in range(0, len(pairs), pairs_per_row)]
    heights = [max(tile.height for tiles, _ in row for tile in tiles) for row in rows]
    pair_width = 2 * tile_size + _GAP
    width = pairs_per_row * (pair_width + _PAIR_GAP) + _PAIR_GAP
    legend_lines = _legend_lines(legend, font, width - 2 * _PAIR_GAP)
    height = 44 + sum(heights) + 32 * len(rows) + 26 * len(legend_lines) + 14
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for column in range(pairs_per_row):
        for side, title in enumerate(titles):
            x = _PAIR_GAP + column * (pair_width + _PAIR_GAP) + side * (tile_size + _GAP)
            draw.text((x, 14), title, font=title_font, fill=_INK)
    y = 44
    for row, row_height in zip(rows, heights):
        for column, (tiles, caption) in enumerate(row):
            x = _PAIR_GAP + column * (pair_width + _PAIR_GAP)
            for side, tile in enumerate(tiles):
                margin = (tile_size - tile.width) // 2
                sheet.paste(tile, (x + side * (tile_size + _GAP) + margin, y))
            draw.text((x, y + row_height + 4), caption, font=font, fill=_FAINT)
        y += row_height + 32
    for line in legend_lines:
        for x, name, color in line:
            fill = tuple(round(255 * value) for value in color)
            draw.rectangle((_PAIR_GAP + x, y + 2, _PAIR_GAP + x + 16, y + 18), fill=fill)
            draw.text((_PAIR_GAP + x + 24, y + 2), name, font=font, fill=_INK)
        y += 26
    return sheet


def _legend_lines(legend: list, font, width: int) -> list[list[tuple]]:
    """Break the legend into lines of (x, name, colour) that fit into `width`."""
    lines, x = [[]], 0
    for name, color in legend:
        needed = 24 + math.ceil(font.getlength(name)) + 28
        if x and x + needed > width:
            lines.append([])
            x = 0
        lines[-1].append((x, name, color))
        x += needed
    return [line for line in lines if line]


def _font(size: int):
    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1 has one size only
        return ImageFont.load_default()
