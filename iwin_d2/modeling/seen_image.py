"""An image in one view: its windows, and what those that were seen say of the output."""

import torch
from torch import Tensor

from .sliding_windows import Axis

__all__ = ["Logits", "SeenImage", "Size"]

Size = tuple[int, int]  # height, width


class Logits:
    """Of a window, Tensor[C, h, w], or what is left of them.

    Attributes:
        values: a rectangle of them.
        first: its first row and column.
        size: h and w of the whole.
    """

    def __init__(self, values: Tensor):
        self.values, self.first = values, [0, 0]
        self.size: Size = values.shape[-2], values.shape[-1]

    def part(self, rows: slice, columns: slice) -> Tensor:
        """Some rows and columns, counted in the whole."""
        top, left = self.first
        return self.values[
            :, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
        ]

    def keep(self, side: int, part: slice) -> None:
        """Let go of all else along a side, 0 for rows, 1 for columns."""
        begin = max(part.start - self.first[side], 0)
        count = part.stop - self.first[side] - begin
        if count < self.values.shape[side + 1]:
            self.values = self.values.narrow(side + 1, begin, count).clone()
            self.first[side] += begin


class SeenImage:
    """An image in one view: its windows, and what they say of the output's pixels.

    Attributes:
        axes: where windows lie, from top to bottom and from left to right.
        held: logits of the windows that were seen, by (row, column) of windows.
        padded: the size of what h x w logits are of.
    """

    padded: Size

    def __init__(
        self, image: Tensor, flipped: bool, output: Size, window: Size | None, stride: Size | None
    ):
        """`image` is Tensor[C, H, W], not flipped; `output` the size of the output."""
        self._image, self._flipped = image, flipped
        height, width = window or (None, None)
        down, right = stride or (1, 1)
        self.axes = (
            Axis(image.shape[-2], output[0], height, down),
            Axis(image.shape[-1], output[1], width, right),
        )
        self.held: dict[tuple[int, int], Logits] = {}

    @property
    def rows(self) -> Axis:
        """From top to bottom."""
        return self.axes[0]

    @property
    def columns(self) -> Axis:
        """From left to right; in a flipped view, as that has them."""
        return self.axes[1]

    def needed(self, side: int, pixels: slice) -> range:
        """The windows along a side, 0 or 1 as in `axes`, that pixels of the output depend on."""
        return self.axes[side].needed(self._mirrored(pixels) if side == 1 else pixels)

    def last_needed(self, side: int, pixels: slice) -> int:
        """The one of these windows that is seen last, going over the output from its beginning."""
        needed = self.needed(side, pixels)
        return needed[0] if self._flipped and side == 1 else needed[-1]

    def windows(self, across: int, piece: slice, band: slice) -> list[tuple[int, int]]:
        """Those that a rectangle of the output depends on, in their order across.

        Args:
            across: the side along which `piece` lies; `band` lies along the other.
            piece: pixels of the output.
            band: the same.
        """
        order = self.needed(across, piece)
        if self._flipped and across == 1:
            order = order[::-1]
        others = self.needed(1 - across, band)
        if across == 1:
            return [(row, column) for column in order for row in others]
        return [(row, column) for row in order for column in others]

    def forget(self, across: int, rest: slice, done: int) -> None:
        """Let go of the logits that nothing needs any more.

        Args:
            across: the side across.
            rest: the pixels along that side that are still to come in this band.
            done: the first pixel along the other side that is no part of this band.
        """
        along = 1 - across
        busy = self.needed(across, rest) if rest.start < rest.stop else range(0)
        length = self.axes[along].output
        ahead = self.needed(along, slice(done, length)) if done < length else range(0)
        for place in list(self.held):
            if place[across] in busy:
                continue
            if place[along] not in ahead:
                del self.held[place]
                continue
            logits = self.held[place]
            next_pixel = slice(done, done + 1)
            if self._flipped and along == 1:
                part, _ = self._matrix(place, along, self._mirrored(next_pixel), logits)
                kept = slice(0, part.stop)
            else:
                part, _ = self._matrix(place, along, next_pixel, logits)
                kept = slice(part.start, logits.size[along])
            if part.start < part.stop:
                logits.keep(along, kept)

    def pixels(self, row: int, column: int) -> Tensor:
        """A window, Tensor[C, h, w]."""
        top, left = self.rows.starts[row], self.columns.starts[column]
        height, width = self.rows.window, self.columns.window
        if not self._flipped:
            return self._image[:, top : top + height, left : left + width]
        right = self._image.shape[-1] - left
        return self._image[:, top : top + height, right - width : right].flip(-1)

    def logits(self, rows: slice, columns: slice) -> Tensor:
        """Logits of a rectangle of the output, float32 Tensor[C, n, m]; its windows are held."""
        columns = self._mirrored(columns)
        total: Tensor | None = None
        for row in self.rows.needed(rows):
            for column in self.columns.needed(columns):
                part = self._resized(row, column, rows, columns)
                total = part if total is None else total.add_(part)
        return total.flip(-1) if self._flipped else total

    def _resized(self, row: int, column: int, rows: slice, columns: slice) -> Tensor:
        """What a window adds to the logits of a rectangle."""
        logits = self.held[row, column]
        high, down = self._matrix((row, column), 0, rows, logits)
        wide, right = self._matrix((row, column), 1, columns, logits)
        # In float32, whatever the model computes in.
        with torch.autocast(down.device.type, enabled=False):
            return down @ (logits.part(high, wide).float() @ right.T)

    def _matrix(
        self, place: tuple[int, int], side: int, pixels: slice, logits: Logits
    ) -> tuple[slice, Tensor]:
        """`Axis.matrix` of a window, for pixels of the output as the view has them."""
        return self.axes[side].matrix(
            place[side], pixels, logits.size[side], self.padded[side], logits.values.device
        )

    def _mirrored(self, columns: slice) -> slice:
        """Columns of the output as the view has them."""
        if not self._flipped:
            return columns
        return slice(self.columns.output - columns.stop, self.columns.output - columns.start)
