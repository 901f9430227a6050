"""One side of an image in windows: against windows, means and resizing written out."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from iwin_d2.modeling.sliding_windows import Axis, cut

CPU = torch.device("cpu")


def resized(x, size):
    """Bilinearly, Tensor[n] to Tensor[size]."""
    return F.interpolate(x[None, None], size, mode="linear", align_corners=False)[0, 0]


def matrices(axis, pixels, logits, padded):
    """The weights of all windows for some pixels of the output, Tensor[windows, pixels, logits]."""
    found = torch.zeros(len(axis.starts), pixels.stop - pixels.start, logits)
    for window in range(len(axis.starts)):
        part, weights = axis.matrix(window, pixels, logits, padded, CPU)
        found[window, :, part] = weights
    return found


@pytest.mark.parametrize(
    ("length", "window", "stride", "starts"),
    [
        (512, 512, 341, [0]),
        (300, 512, 341, [0]),
        (853, 512, 341, [0, 341]),
        (854, 512, 341, [0, 341, 342]),
        (683, 512, 341, [0, 171]),
        (10, 4, 4, [0, 4, 6]),
        (12, 4, 4, [0, 4, 8]),
        (7, None, 1, [0]),
        (1, 5, 3, [0]),
    ],
)
def test_windows_lie_at_the_strides_and_the_last_at_the_border(length, window, stride, starts):
    axis = Axis(length, length, window, stride)
    assert axis.starts == starts
    assert axis.window == min(window or length, length)
    assert starts[-1] + axis.window == length


sides = st.integers(1, 60)


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, sides, st.sampled_from([1, 2, 4]), st.integers(0, 5), st.data())
def test_the_weights_are_those_of_the_steps_one_by_one(
    length, output, window, stride, divisor, padding, data
):
    assume(stride <= window)
    axis = Axis(length, output, window, stride)
    padded = axis.window + padding
    logits = -(-padded // divisor)
    maps = torch.rand(len(axis.starts), logits, dtype=torch.float64)
    total = torch.zeros(length, dtype=torch.float64)
    count = torch.zeros(length, dtype=torch.float64)
    for start, values in zip(axis.starts, maps):
        total[start : start + axis.window] += resized(values, padded)[: axis.window]
        count[start : start + axis.window] += 1
    expected = resized(total / count, output)
    assert axis.depth == count.max()

    first = data.draw(st.integers(0, output - 1))
    pixels = slice(first, data.draw(st.integers(first + 1, output)))
    weights = matrices(axis, pixels, logits, padded)
    found = torch.einsum("wpl,wl->p", weights.double(), maps)
    torch.testing.assert_close(found, expected[pixels], rtol=0, atol=1e-6)
    used = weights.flatten(1).any(1).nonzero().flatten().tolist()
    needed = axis.needed(pixels)
    assert set(used) <= set(needed)
    assert needed[0] == used[0] and needed[-1] == used[-1]


@given(st.integers(0, 9), st.integers(1, 100), st.integers(1, 20), st.integers(0, 15))
def test_pieces_cover_everything_once_and_are_as_long_as_they_may_be(start, length, size, most):
    pieces = cut(slice(start, start + length), size, lambda x: x.stop - x.start <= most)
    assert pieces[0].start == start and pieces[-1].stop == start + length
    assert all(first.stop == second.start for first, second in pairwise(pieces))
    lengths = [piece.stop - piece.start for piece in pieces]
    assert set(lengths[:-1]) <= {max(min(size, most), 1)} and lengths[-1] <= max(min(size, most), 1)
