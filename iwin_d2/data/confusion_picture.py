"""A confusion matrix as a picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ..lettering import FAINT, INK, PAPER, cut_text, load_font

__all__ = ["ConfusionCaptions", "draw_confusion"]

_MOST = 200  # classes that are drawn
_REMARKS = 5  # of the most frequent confusions
_RIGHT, _WRONG, _ABSENT = (0, 110, 60), (170, 15, 25), (226, 226, 232)
_MARGIN, _GAP, _LINE = 20, 6, 22
_LONGEST = 190  # pixels that a name may take
_CAPTION = "A row: the {unit} of one class, in percent. Green: found; red: taken for another one."
_READABLE = 30  # pixels of a cell that has room for a number


@dataclass(frozen=True)
class ConfusionCaptions:
    """What a picture of a confusion matrix says, by the task.

    Attributes:
        unit: what is counted, in the plural: "pixels", "images".
        score_name: what stands beside each row, in percent.
        score: the same from a matrix, int64 [C, C]: float [C] from 0 to 1, NaN for nothing.
        rank_name: which classes are drawn where they are too many, those of most of this.
        rank: the same from a matrix: [C].
    """

    unit: str
    score_name: str
    score: Callable[[np.ndarray], np.ndarray]
    rank_name: str
    rank: Callable[[np.ndarray], np.ndarray]


def draw_confusion(
    confusion: np.ndarray,
    class_names: Sequence[str],
    captions: ConfusionCaptions,
    heading: str = "",
) -> Image.Image:
    """Draw a row for each class of the truth: the shares of what it has by predicted class.

    What was found is green, what was taken for another class red; the colour goes by the square
    root of the share, so that small ones show. Beside each row stands the class's score, below all
    the most frequent confusions.

    Args:
        confusion: int64 [C, C], rows are classes of the truth. Of more than 200 classes, the first
            by `captions.rank` are drawn.
        class_names: C of them.
        captions: what the task calls things.
        heading: one line above.

    Returns:
        An RGB picture; its size goes by the classes: 4 take 600 pixels, 200 take 2,700.
    """
    counts = confusion.sum(1)
    shown = np.sort(np.argsort(-captions.rank(confusion), kind="stable")[:_MOST])
    shares = confusion[np.ix_(shown, shown)] / np.maximum(counts[shown], 1)[:, None]
    shares[counts[shown] == 0] = np.nan
    scores = captions.score(confusion)[shown]
    names = [class_names[index] for index in shown]
    table = _draw_table(shares, scores, names, f"{captions.score_name} %")

    lines = [_CAPTION.format(unit=captions.unit)]
    if len(shown) < len(confusion):
        lines.append(
            f"Drawn are {len(shown)} of {len(confusion)} classes, those of most "
            f"{captions.rank_name}."
        )
    lines += _most_frequent(confusion, class_names, captions.unit)
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


def _draw_table(
    shares: np.ndarray, scores: np.ndarray, names: Sequence[str], score_name: str
) -> Image.Image:
    """The cells with the names of rows and columns, and the score of each row.

    Args:
        shares: [n, n] between 0 and 1; a row of NaN where the truth has nothing of a class.
        scores: [n] between 0 and 1, or NaN.
        names: n of them.
        score_name: what stands above the scores.
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
    values = ["-" if np.isnan(value) else f"{100 * value:.1f}" for value in scores]
    sheet.paste(_draw_list(values, font, cell, 60), (edge + side, edge))
    draw = ImageDraw.Draw(sheet)
    draw.text((edge, 0), "predicted", font=faint, fill=FAINT)
    draw.text((edge + side + _GAP, edge - _LINE), score_name, font=faint, fill=FAINT)
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


def _most_frequent(confusion: np.ndarray, class_names: Sequence[str], unit: str) -> list[str]:
    """The most frequent confusions, a line for each."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_REMARKS]
    pairs = [np.unravel_index(place, wrong.shape) for place in order]
    total = confusion.sum()
    return [
        f"{100 * wrong[row, column] / total:.2f} % of all {unit} are {class_names[row]}, "
        f"taken for {class_names[column]}"
        for row, column in pairs
        if wrong[row, column]
    ]
