"""Turning pictures upright, as the display matrix of their file says."""

import struct

import numpy as np

__all__ = ["display_matrix", "turn_upright"]

_MATRIX = struct.Struct("=9i")


def display_matrix(frame) -> tuple[int, int, int, int] | None:
    """The part (a, b, c, d) of a PyAV frame's display matrix that turns it; None: shown as it is.

    A pixel is shown at (a x + c y, b x + d y), y pointing down.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d, *_ = _MATRIX.unpack(bytes(data)[: _MATRIX.size])
    return a, b, c, d


def turn_upright(pixels: np.ndarray, matrix: tuple[int, int, int, int] | None) -> np.ndarray:
    """Turn and mirror pixels, [H, W, 3], by the display matrix; the result is a view.

    Turns by other than right angles, which no camera notes, are taken for the nearest right one.
    """
    if matrix is None:
        return pixels
    a, b, c, d = matrix
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, right, down = pixels.swapaxes(0, 1), c, b
    else:
        right, down = a, d
    return pixels[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]
