"""Predictions beside ground truth, many images on one sheet."""

import os
from collections.abc import Sequence

from PIL import Image, ImageDraw

from ..engine.drawing import class_color
from ..engine.objects import (
    check_class_names,
    draw_tile,
    predicted_objects,
    read_record_image,
    spread,
    true_objects,
)
from ..engine.panels import FAINT, INK, PAPER, draw_legend, legend_lines, load_font
from ..errors import DataError
from .output import number_of, save_picture

__all__ = ["contact_sheet", "lay_out_pairs"]

_GAP = 6  # pixels between tiles
_PAIR_GAP = 24  # between one pair of tiles and the next


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
    check_class_names(metadata, str(output))
    chosen = spread(records, max_images)
    names, to_class = metadata.thing_classes, metadata.thing_dataset_id_to_contiguous_id
    pairs, legend_classes = [], set()
    for record in chosen:
        found = results.get(record["image_id"], [])
        found = [item for item in found if item["score"] >= score_threshold]
        truth, predicted = true_objects(record), predicted_objects(found, to_class)
        legend_classes.update(truth.classes, predicted.classes)
        image = read_record_image(record)
        tiles = [draw_tile(image, objects, names, tile_size) for objects in (truth, predicted)]
        counts = f"{number_of(truth, 'object')}, {number_of(predicted, 'prediction')}"
        pairs.append((tiles, f"{os.path.basename(record['file_name'])}: {counts}"))
    legend = [(names[c], class_color(c)) for c in sorted(legend_classes)]
    titles = ("ground truth", f"predictions, score {score_threshold:g} or more")
    sheet = lay_out_pairs(pairs, titles, legend, min(pairs_per_row, len(chosen)), tile_size)
    return save_picture(sheet, output)


def lay_out_pairs(
    pairs: list, titles: tuple[str, str], legend: list, pairs_per_row: int, tile_size: int
) -> Image.Image:
    """Put pairs of tiles on one sheet: titles above the columns, the legend below.

    Args:
        pairs: two tiles and a caption each.
        titles: of the left and of the right tile.
        legend: names with colours.
        pairs_per_row: side by side.
        tile_size: pixels of the longer side of tiles, at most.
    """
    title_font, font = load_font(18), load_font(14)
    rows = [pairs[i : i + pairs_per_row] for i in range(0, len(pairs), pairs_per_row)]
    heights = [max(tile.height for tiles, _ in row for tile in tiles) for row in rows]
    pair_width = 2 * tile_size + _GAP
    width = pairs_per_row * (pair_width + _PAIR_GAP) + _PAIR_GAP
    entries = legend_lines(legend, font, width - 2 * _PAIR_GAP)
    height = 44 + sum(heights) + 32 * len(rows) + 26 * len(entries) + 14
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column in range(pairs_per_row):
        for side, title in enumerate(titles):
            x = _PAIR_GAP + column * (pair_width + _PAIR_GAP) + side * (tile_size + _GAP)
            draw.text((x, 14), title, font=title_font, fill=INK)
    y = 44
    for row, row_height in zip(rows, heights):
        for column, (tiles, caption) in enumerate(row):
            x = _PAIR_GAP + column * (pair_width + _PAIR_GAP)
            for side, tile in enumerate(tiles):
                margin = (tile_size - tile.width) // 2
                sheet.paste(tile, (x + side * (tile_size + _GAP) + margin, y))
            draw.text((x, y + row_height + 4), caption, font=font, fill=FAINT)
        y += row_height + 32
    draw_legend(sheet, entries, font, (_PAIR_GAP, y))
    return sheet
