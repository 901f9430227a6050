"""Pictures side by side under titles, with a legend and remarks below.

Everything is drawn by Pillow, on white.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from ..lettering import FAINT, INK, PAPER, cut_text, load_font
from .drawing import Color

__all__ = ["FAINT", "INK", "PAPER", "Panel", "compose", "draw_legend", "legend_lines", "load_font"]

LEGEND_LINE = 26  # pixels from one line of a legend to the next
_MARGIN, _GAP = 24, 10
_HEADING, _TITLE, _TEXT = 20, 15, 14  # sizes of letters


@dataclass(frozen=True)
class Panel:
    """A picture and the line above it."""

    title: str
    picture: Image.Image


def compose(
    panels: Sequence[Panel],
    *,
    heading: str,
    remarks: Sequence[str] = (),
    legend: Sequence[tuple[str, Color]] = (),
    footer: Image.Image | None = None,
    columns: int | None = None,
) -> Image.Image:
    """Put pictures into rows under a heading; below them a footer, the legend and remarks.

    Args:
        panels: from left to right, then down; their titles are cut to the pictures' width.
        heading: one line; broken into several where the pictures are narrow.
        remarks: lines, broken likewise.
        legend: names with their colours, RGB in [0, 1].
        footer: one more picture, such as a scale of colours.
        columns: panels in a row; all if None.
    """
    columns = min(columns or len(panels), len(panels))
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    cell = max(panel.picture.width for panel in panels)
    width = max(columns * (cell + _GAP) - _GAP, footer.width if footer else 0, 480)
    sizes = [load_font(size) for size in (_HEADING, _TITLE, _TEXT)]
    heading_lines = _wrap(heading, sizes[0], width)
    remark_lines = [line for remark in remarks for line in _wrap(remark, sizes[2], width)]
    entries = legend_lines(legend, sizes[2], width)
    heights = [max(panel.picture.height for panel in row) + 26 for row in rows]
    height = 28 * len(heading_lines) + sum(heights) + _GAP * len(rows)
    height += (footer.height + _GAP if footer else 0) + LEGEND_LINE * len(entries)
    height += 20 * len(remark_lines) + 2 * 16
    sheet = Image.new("RGB", (width + 2 * _MARGIN, height), PAPER)
    draw, y = ImageDraw.Draw(sheet), 16
    for line in heading_lines:
        draw.text((_MARGIN, y), line, font=sizes[0], fill=INK)
        y += 28
    for row, row_height in zip(rows, heights):
        for column, panel in enumerate(row):
            x = _MARGIN + column * (cell + _GAP)
            draw.text((x, y + 4), cut_text(panel.title, sizes[1], cell), font=sizes[1], fill=INK)
            sheet.paste(panel.picture, (x, y + 26))
        y += row_height + _GAP
    if footer:
        sheet.paste(footer, (_MARGIN, y))
        y += footer.height + _GAP
    y = draw_legend(sheet, entries, sizes[2], (_MARGIN, y))
    for line in remark_lines:
        draw.text((_MARGIN, y), line, font=sizes[2], fill=FAINT)
        y += 20
    return sheet


def legend_lines(legend: Sequence[tuple[str, Color]], font, width: int) -> list[list[tuple]]:
    """Break a legend into lines of (x, name, colour) that fit into `width`."""
    lines, x = [[]], 0
    for name, color in legend:
        needed = 24 + math.ceil(font.getlength(name)) + 28
        if x and x + needed > width:
            lines.append([])
            x = 0
        lines[-1].append((x, name, color))
        x += needed
    return [line for line in lines if line]


def draw_legend(sheet: Image.Image, lines: list[list[tuple]], font, place: tuple[int, int]) -> int:
    """Draw what `legend_lines` gives at (x, y); return the y below it."""
    draw, (left, y) = ImageDraw.Draw(sheet), place
    for line in lines:
        for x, name, color in line:
            fill = tuple(round(255 * value) for value in color)
            draw.rectangle((left + x, y + 2, left + x + 16, y + 18), fill=fill)
            draw.text((left + x + 24, y + 2), name, font=font, fill=INK)
        y += LEGEND_LINE
    return y


def _wrap(text: str, font, width: int) -> list[str]:
    """Break a text between words into lines of at most `width`, where there are spaces to do so."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
