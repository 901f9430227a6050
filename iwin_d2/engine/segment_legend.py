"""Legends below label maps: the classes in columns, each with its colour and its share."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ..lettering import FAINT, INK, PAPER, cut_text, load_font
from .drawing import Color

__all__ = ["Entry", "LegendGrid"]

_PAD, _LINE, _SWATCH, _LETTERS = 12, 24, 14, 14  # pixels below a picture of up to _WIDTH pixels
_WIDTH = 900
_LONGEST = 170  # pixels of a name; longer ones are cut
_WIDEST_VALUE = "100.0 %"


class Entry(NamedTuple):
    """A line of a legend.

    Attributes:
        name: of the class.
        value: what stands behind it, such as its share.
        color: of its square, RGB in [0, 1].
        faint: whether it is there to keep its place alone.
    """

    name: str
    value: str
    color: Color
    faint: bool = False


class LegendGrid:
    """The places for entries below a picture: columns of one width, filled line by line.

    Attributes:
        columns: how many.
    """

    def __init__(self, width: int, names: Sequence[str]):
        """Choose the columns.

        Args:
            width: of the picture in pixels.
            names: the longest of them has to fit into a column, unless it is very long.
        """
        self._width = width
        self._unit = max(width / _WIDTH, 1.0)
        self._font = load_font(round(_LETTERS * self._unit))
        self._value = math.ceil(self._font.getlength(_WIDEST_VALUE))
        self._swatch, self._pad = round(_SWATCH * self._unit), round(_PAD * self._unit)
        self._line, self._gap = round(_LINE * self._unit), round(_PAD * self._unit / 2)
        longest = max((math.ceil(self._font.getlength(name)) for name in names), default=0)
        around = self._swatch + 3 * self._gap + self._value + self._pad
        room = max(width - self._pad, 1)
        self._column = min(around + min(longest, round(_LONGEST * self._unit)), room)
        self.columns = max(room // self._column, 1)
        self._name = max(self._column - around, 1)

    def lines(self, count: int) -> int:
        """How many lines so many entries take."""
        return math.ceil(count / self.columns)

    def draw(self, entries: Sequence[Entry], lines: int | None = None) -> np.ndarray:
        """Draw the entries.

        Args:
            entries: from left to right, then down.
            lines: to make room for; as many as the entries take if None.

        Returns:
            RGB, uint8 [h, width, 3]; h depends on the number of lines alone.
        """
        lines = self.lines(len(entries)) if lines is None else lines
        strip = Image.new("RGB", (self._width, lines * self._line + 2 * self._gap), PAPER)
        draw = ImageDraw.Draw(strip)
        for number, entry in enumerate(entries[: lines * self.columns]):
            line, column = divmod(number, self.columns)
            x, y = self._pad + column * self._column, self._gap + line * self._line
            self._draw_entry(draw, entry, x, y)
        return np.asarray(strip)

    def _draw_entry(self, draw: ImageDraw.ImageDraw, entry: Entry, x: int, y: int) -> None:
        side, middle = self._swatch, y + self._line // 2
        box = (x, middle - side // 2, x + side, middle - side // 2 + side)
        fill = tuple(round(255 * value) for value in entry.color)
        if entry.faint:
            draw.rectangle(box, outline=fill)
        else:
            draw.rectangle(box, fill=fill)
        name = cut_text(entry.name, self._font, self._name)
        left = x + side + self._gap
        ink = FAINT if entry.faint else INK
        draw.text((left, middle), name, font=self._font, fill=ink, anchor="lm")
        right = left + self._name + self._gap + self._value
        draw.text((right, middle), entry.value, font=self._font, fill=FAINT, anchor="rm")
