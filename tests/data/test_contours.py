"""Boundary tracing and polygons."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from iwin_d2.data.contours import (
    mask_to_polygons,
    polygons_to_mask,
    signed_area,
    simplify_closed,
    trace_boundaries,
)


def disc(size: int, radius: float, centre: tuple[float, float]) -> np.ndarray:
    y, x = np.mgrid[:size, :size] + 0.5
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2


def test_a_single_pixel_is_a_unit_square():
    mask = np.zeros((4, 5), dtype=bool)
    mask[2, 3] = True
    (boundary,) = trace_boundaries(mask)
    assert sorted(map(tuple, boundary.tolist())) == [(3, 2), (3, 3), (4, 2), (4, 3)]
    assert signed_area(boundary) == 1


def test_a_hole_has_a_negative_area():
    mask = np.ones((6, 7), dtype=bool)
    mask[2:4, 3:5] = False
    areas = sorted(signed_area(boundary) for boundary in trace_boundaries(mask))
    assert areas == [-4, 42]
    with pytest.raises(ValueError, match="hole"):
        mask_to_polygons(mask)


def test_pixels_that_touch_at_a_corner_are_two_regions():
    assert len(trace_boundaries(np.eye(2, dtype=bool))) == 2


def test_an_empty_mask_has_no_boundary_and_no_polygon():
    empty = np.zeros((3, 3), dtype=bool)
    assert trace_boundaries(empty) == []
    with pytest.raises(ValueError, match="empty"):
        mask_to_polygons(empty)


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_boundaries_enclose_exactly_the_mask(mask):
    boundaries = trace_boundaries(mask)
    assert sum(signed_area(boundary) for boundary in boundaries) == mask.sum()
    steps = [np.abs(np.roll(b, -1, axis=0) - b).sum(1) for b in boundaries]
    assert all((step == 1).all() for step in steps)
    outer = [b.ravel().tolist() for b in boundaries if signed_area(b) > 0]
    if len(outer) == len(boundaries):
        assert np.array_equal(polygons_to_mask(outer, *mask.shape), mask)


def test_simplification_keeps_corners_and_drops_what_lies_between():
    side = np.arange(10.0)
    square = np.concatenate(
        [
            np.stack([side, 0 * side], 1),
            np.stack([0 * side + 10, side], 1),
            np.stack([10 - side, 0 * side + 10], 1),
            np.stack([0 * side, 10 - side], 1),
        ]
    )
    assert simplify_closed(square, 0.1).tolist() == [[0, 0], [10, 0], [10, 10], [0, 10]]


@pytest.mark.parametrize("radius", [4.0, 7.3, 40.0])
def test_polygons_of_discs_are_close_and_small(radius):
    mask = disc(100, radius, (45.3, 50.8))
    (polygon,) = mask_to_polygons(mask, min_iou=0.97)
    drawn = polygons_to_mask([polygon], *mask.shape)
    assert (drawn & mask).sum() / (drawn | mask).sum() >= 0.97
    assert len(polygon) // 2 < len(trace_boundaries(mask)[0]) / 3


def test_a_mask_that_cannot_be_simplified_comes_back_exactly():
    mask = np.zeros((8, 8), dtype=bool)
    mask[1:7, 3] = mask[4, 1:7] = True  # a cross, one pixel wide
    polygons = mask_to_polygons(mask, min_iou=1.0)
    assert np.array_equal(polygons_to_mask(polygons, 8, 8), mask)


def test_every_region_has_its_polygon():
    mask = disc(60, 8, (15, 15)) | disc(60, 9, (45, 40))
    assert len(mask_to_polygons(mask)) == 2
