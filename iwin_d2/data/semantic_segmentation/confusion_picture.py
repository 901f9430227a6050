"""A confusion matrix as a picture."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ...lettering import FAINT, INK, PAPER, cut_text, load_font
from .metrics import SegmentationMetrics

__all__ = ["draw_confusion"]

_MOST = 200  # classes that are drawn
_REMARKS = 5  # of the most frequent confusions
_RIGHT, _WRONG, _ABSENT = (0, 110, 60), (170, 15, 25), (226, 226, 232)
_MARGIN, _GAP, _LINE = 20, 6, 22
_LONGEST = 190  # pixels that a name may take
_CAPTION = "A row: the pixels of one class, in percent. Green: found; red: taken for another one."
_READABLE = 30  # pixels of a cell that has room for a number


def draw_confusion(
    confusion: np.ndarray, class_names: Sequence[str], heading: str = ""
) -> Image.Image:
    """Draw a row for each class of the truth: the shares of its pixels by predicted class.

    What was found is green, what was taken for another class red; the colour goes by the square
    root of the share, so that small ones show. Beside each row stands the class's IoU, below all
    the most frequent confusions.

    Args:
        confusion: int64 [C, C], rows are classes of the truth. Of more than 200 classes, those of
            most pixels are drawn.
        class_names: C of them.
        heading: one line above.

    Returns:
        An RGB picture; its size goes by the classes: 4 take 600 pixels, 200 take 2,700.
    """
    pixels = confusion.sum(1)
    shown = np.sort(np.argsort(-pixels, kind="stable")[:_MOST])
    shares = confusion[np.ix_(shown, shown)] / np.maximum(pixels[shown], 1)[:, None]
    shares[pixels[shown] == 0] = np.nan
    iou = SegmentationMetrics.of(confusion).iou[shown]
    table = _draw_table(shares, iou, [class_names[index] for index in shown])

    lines = [_CAPTION, *_most_frequent(confusion, class_names)]
    if len(shown) < len(confusion):
        lines.insert(
            1, f"Drawn are {len(shown)} of {len(confusion)} classes, those of most pixels."
        )
    title, font = load_font(18), load_font(14)
    longest = max([title.getlength(heading), *map(font.getlength, lines)])
    width = max(table.width, round(longest)) + 2 * _MARGIN
    height = table.height + _LINE * (len(lines) + 2) + 2 * _MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), heading, font=title, fill=INK)
    sheet.paste(table, (_MARGIN, _MARGIN + _LINE + _GAP))
    y = _MARGIN + 2 * _LINE + table.height
    for line in lines:
        draw.text((_MARGIN, y), line, font=font, fill=FAINT)
        y += _LINE
    return sheet


def _draw_table(shares: np.ndarray, iou: np.ndarray, names: Sequence[str]) -> Image.Image:
    """The cells with the names of rows and columns, and the IoU of each row.

    Args:
        shares: [n, n] between 0 and 1; a row of NaN where the truth has no such pixel.
        iou: [n], or NaN.
        names: n of them.
    """
    cell = min(max(900 // len(names), 12), 64)
    font, faint = load_font(min(cell - 1, 14)), load_font(13)
    names = [cut_text(name, font, _LONGEST) for name in names]
    length = round(max(map(font.getlength, names))) + 2 * _GAP
    edge, side = _LINE + length, cell * len(names)
    sheet = Image.new("RGB", (edge + side + 60, edge + side), PAPER)
    sheet.paste(_draw_cells(shares, cell), (edge, edge))
    rows = _draw_list(names, font, cell, length, to_the_right=True)
    sheet.paste(rows, (_LINE, edge))
    columns = _draw_list(names, font, cell, length)
    sheet.paste(columns.transpose(Image.Transpose.ROTATE_90), (edge, _LINE))
    values = ["-" if np.isnan(value) else f"{100 * value:.1f}" for value in iou]
    sheet.paste(_draw_list(values, font, cell, 60), (edge + side, edge))
    draw = ImageDraw.Draw(sheet)
    draw.text((edge, 0), "predicted", font=faint, fill=FAINT)
    draw.text((edge + side + _GAP, edge - _LINE), "IoU %", font=faint, fill=FAINT)
    truth = Image.new("RGB", (60, _LINE), PAPER)
    ImageDraw.Draw(truth).text((60 - faint.getlength("truth"), 0), "truth", font=faint, fill=FAINT)
    sheet.paste(truth.transpose(Image.Transpose.ROTATE_90), (0, edge))
    return sheet


def _draw_list(
    texts: Sequence[str], font, pitch: int, width: int, to_the_right: bool = False
) -> Image.Image:
    """Texts below each other, `pitch` pixels apart, at the left or right edge."""
    sheet = Image.new("RGB", (width, pitch * len(texts)), PAPER)
    draw = ImageDraw.Draw(sheet)
    _, top, _, bottom = font.getbbox("Ag")
    for number, text in enumerate(texts):
        x = width - _GAP - font.getlength(text) if to_the_right else _GAP
        y = pitch * number + (pitch - top - bottom) / 2
        draw.text((x, y), text, font=font, fill=INK)
    return sheet


def _draw_cells(shares: np.ndarray, cell: int) -> Image.Image:
    """The coloured cells, with the shares in percent in them where there is room."""
    strength = np.sqrt(np.nan_to_num(shares))[:, :, None]
    full = np.where(np.eye(len(shares), dtype=bool)[:, :, None], _RIGHT, _WRONG)
    colors = np.where(np.isnan(shares)[:, :, None], _ABSENT, PAPER + strength * (full - PAPER))
    large = colors.round().astype(np.uint8).repeat(cell, axis=0).repeat(cell, axis=1)
    large[::cell] = large[:, ::cell] = large[-1] = large[:, -1] = _ABSENT
    sheet = Image.fromarray(large)
    if cell < _READABLE:
        return sheet
    draw, font = ImageDraw.Draw(sheet), load_font(13)
    _, top, _, bottom = font.getbbox("0")
    for row, column in zip(*np.nonzero(np.nan_to_num(shares))):
        share = shares[row, column]
        text = f"{100 * share:.0f}" if share >= 0.005 else "<1"
        x = cell * column + (cell - font.getlength(text)) / 2
        y = cell * row + (cell - top - bottom) / 2
        draw.text((x, y), text, font=font, fill=PAPER if strength[row, column] > 0.6 else INK)
    return sheet


def _most_frequent(confusion: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """The confusions of most pixels, a line for each."""
    wrong = confusion * ~np.eye(len(confusion), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_REMARKS]
    pairs = [np.unravel_index(place, wrong.shape) for place in order]
    total = confusion.sum()
    return [
        f"{100 * wrong[row, column] / total:.2f} % of all pixels are {class_names[row]}, "
        f"taken for {class_names[column]}"
        for row, column in pairs
        if wrong[row, column]
    ]
