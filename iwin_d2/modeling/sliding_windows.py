"""Where sliding windows lie along one side of an image, and what each output pixel takes of them.

From the logits of the windows to those of the output everything is linear: they are upsampled to
the window, the windows' mean is taken where they overlap, and that is resized to the output. And it
is separable: windows lie in a grid. So for each row of windows there is one matrix from rows of
logits to rows of the output, for each column one for the columns, and any rectangle of the output
can be computed by itself, without the upsampled maps.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Axis", "cut"]


class Axis:
    """One side of an image, its windows and the same side of the output.

    Windows start at multiples of the stride; the last is moved back to end at the image's border. A
    window larger than the image is the image.

    Attributes:
        length: of the side of the image, in pixels.
        output: of the same side of the output.
        window: of a window.
        starts: the first pixel of each window.
        depth: the most windows that a pixel can lie in.
    """

    def __init__(self, length: int, output: int, window: int | None = None, stride: int = 1):
        self.length, self.output = length, output
        self.window = min(window or length, length)
        last = length - self.window
        self.starts = [min(start, last) for start in range(0, last + stride, stride)]
        self._starts = torch.tensor(self.starts)
        self.depth = int(self._covering(self._starts).max())
        self._matrices: dict[tuple, tuple[slice, Tensor]] = {}

    def needed(self, pixels: slice) -> range:
        """The windows, by number, that these pixels of the output depend on."""
        first = int(self._place(pixels.start))
        last = min(math.ceil(self._place(pixels.stop - 1)), self.length - 1)
        begin = bisect_right(self.starts, first - self.window)
        return range(begin, bisect_right(self.starts, last))

    def _place(self, pixel: int) -> float:
        """Where in the image, counted in pixels, a pixel of the output takes its value."""
        return max((pixel + 0.5) * (self.length / self.output) - 0.5, 0.0)

    def matrix(
        self, window: int, pixels: slice, logits: int, padded: int, device: torch.device
    ) -> tuple[slice, Tensor]:
        """What these pixels of the output take of a window's logits.

        Args:
            window: its number.
            pixels: of the output.
            logits: how many there are along this side of the window.
            padded: the pixels that these are of: the window's and the padding's.
            device: where the weights are to lie.

        Returns:
            the part of the logits that anything is taken of, and their weights,
            Tensor[pixels, part].
        """
        key = window, pixels.start, pixels.stop, logits, padded, device
        if key not in self._matrices:
            whole = self._whole_matrix(window, pixels, logits, padded)
            used = whole.any(0).nonzero().flatten().tolist()
            part = slice(used[0], used[-1] + 1) if used else slice(0, 0)
            self._matrices[key] = part, whole[:, part].float().to(device)
        return self._matrices[key]

    def _whole_matrix(self, window: int, pixels: slice, logits: int, padded: int) -> Tensor:
        positions = torch.arange(pixels.start, pixels.stop)
        near, far, share = _taps(positions, self.output, self.length)
        start = self.starts[window]
        matrix = torch.zeros(len(positions), logits, dtype=torch.float64)
        for pixel, weight in ((near, 1 - share), (far, share)):
            inside = (pixel >= start) & (pixel < start + self.window)
            weight = weight * inside / self._covering(pixel)
            within = (pixel - start).clamp(0, self.window - 1)
            first, second, mixed = _taps(within, padded, logits)
            matrix.scatter_add_(1, first[:, None], (weight * (1 - mixed))[:, None])
            matrix.scatter_add_(1, second[:, None], (weight * mixed)[:, None])
        return matrix

    def _covering(self, pixels: Tensor) -> Tensor:
        """How many windows each of these pixels of the image lies in."""
        after = torch.searchsorted(self._starts, pixels, right=True)
        return after - torch.searchsorted(self._starts, pixels - self.window, right=True)


def _taps(positions: Tensor, length: int, source: int) -> tuple[Tensor, Tensor, Tensor]:
    """Bilinear resizing of `source` numbers to `length`, corners not aligned, at some positions.

    Returns:
        the two numbers that each is between, and the share of the second, float64.
    """
    places = ((positions.double() + 0.5) * (source / length) - 0.5).clamp(min=0)
    near = places.long().clamp(max=source - 1)
    return near, (near + 1).clamp(max=source - 1), places - near


def cut(pixels: slice, size: int, fits: Callable[[slice], bool]) -> list[slice]:
    """Cut pixels into pieces of up to `size`, each the longest that fits; one pixel always does.

    Whatever is part of a piece that fits must fit, too.
    """
    pieces, start = [], pixels.start
    while start < pixels.stop:
        stops = range(start + 2, min(start + size, pixels.stop) + 1)
        count = bisect_left(stops, True, key=lambda stop: not fits(slice(start, stop)))
        pieces.append(slice(start, start + 1 + count))
        start = pieces[-1].stop
    return pieces
