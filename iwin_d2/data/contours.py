"""From masks to polygons: boundaries traced on the pixel grid, and simplified.

Coordinates are COCO's: pixel (row i, column j) covers the square [j, j+1] x [i, i+1].
"""

import numpy as np
import pycocotools.mask as mask_util

__all__ = ["mask_to_polygons", "polygons_to_mask", "simplify_closed", "trace_boundaries"]

# Steps along the grid, in the order in which they turn to the right (y points down).
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def trace_boundaries(mask: np.ndarray) -> list[np.ndarray]:
    """All boundaries of a mask, as closed walks from grid corner to grid corner.

    The mask lies on the right of the walk, so `signed_area` is positive for an outer boundary and
    negative for a hole. Pixels that touch at a corner only are not connected.

    Args:
        mask: bool[H, W].

    Returns:
        a list of int[K, 2], the corners (x, y) in order, one unit step apart.
    """
    exits = _boundary_exits(mask)
    boundaries = []
    while exits:
        start = min(exits)
        direction = min(exits[start])
        corner, first, walk = start, direction, []
        while True:
            walk.append(corner)
            exits[corner].discard(direction)
            if not exits[corner]:
                del exits[corner]
            dx, dy = _STEPS[direction]
            corner = (corner[0] + dx, corner[1] + dy)
            turns = [(direction + turn) % 4 for turn in (1, 0, 3)]  # right, straight on, left
            direction = next((d for d in turns if d in exits.get(corner, ())), None)
            if direction is None or (corner, direction) == (start, first):
                break
        boundaries.append(np.array(walk))
    return boundaries


def _boundary_exits(mask: np.ndarray) -> dict[tuple[int, int], set[int]]:
    """For each grid corner on a boundary, the directions in which the boundary leaves it."""
    padded = np.pad(mask.astype(bool), 1)
    inside = padded[1:-1, 1:-1]
    # Per side of a pixel: where it is a boundary, and the corner at which the walk enters it.
    sides = (
        (inside & ~padded[:-2, 1:-1], 0, 0),  # top, walked to the right
        (inside & ~padded[1:-1, 2:], 1, 0),  # right, walked down
        (inside & ~padded[2:, 1:-1], 1, 1),  # bottom, walked to the left
        (inside & ~padded[1:-1, :-2], 0, 1),  # left, walked up
    )
    exits: dict[tuple[int, int], set[int]] = {}
    for direction, (edges, dx, dy) in enumerate(sides):
        rows, columns = np.nonzero(edges)
        for x, y in zip((columns + dx).tolist(), (rows + dy).tolist()):
            exits.setdefault((x, y), set()).add(direction)
    return exits


def signed_area(points: np.ndarray) -> float:
    """Area of the closed polygon float[K, 2]; positive when walked clockwise on the screen."""
    x, y = points[:, 0], points[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def simplify_closed(points: np.ndarray, tolerance: float) -> np.ndarray:
    """Drop points of a closed polygon that lie within `tolerance` of what remains.

    Douglas and Peucker's method, on the two halves between the first point and the one that is
    farthest from it.

    Args:
        points: float[K, 2], K >= 3.
        tolerance: in pixels.

    Returns:
        float[N, 2] with 2 <= N <= K.
    """
    far = int(np.argmax(((points - points[0]) ** 2).sum(1)))
    closed = np.concatenate([points, points[:1]])
    keep = np.zeros(len(closed), dtype=bool)
    keep[[0, far]] = True
    spans = [(0, far), (far, len(points))]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        chord = closed[last] - closed[first]
        offsets = closed[first + 1 : last] - closed[first]
        distances = np.abs(offsets[:, 0] * chord[1] - offsets[:, 1] * chord[0])
        distances = distances / max(np.hypot(*chord), 1e-9)
        worst = int(np.argmax(distances))
        if distances[worst] > tolerance:
            middle = first + 1 + worst
            keep[middle] = True
            spans += [(first, middle), (middle, last)]
    return closed[:-1][keep[:-1]]


def polygons_to_mask(polygons: list[list[float]], height: int, width: int) -> np.ndarray:
    """The union of COCO polygons [x0, y0, x1, y1, ...] as bool[height, width]."""
    if not polygons:
        return np.zeros((height, width), dtype=bool)
    rle = mask_util.merge(mask_util.frPyObjects(polygons, height, width))
    return mask_util.decode(rle).astype(bool)


def mask_to_polygons(mask: np.ndarray, min_iou: float = 0.97) -> list[list[float]]:
    """COCO polygons of a mask, with as few points as `min_iou` allows.

    Args:
        mask: bool[H, W], not empty and without holes.
        min_iou: the IoU with the mask that the drawn polygons must reach; the exact pixel outline
            is returned where no simplification reaches it.

    Returns:
        one [x0, y0, x1, y1, ...] for each connected region.

    Raises:
        ValueError: for an empty mask or one with a hole, which COCO polygons cannot express.
    """
    boundaries = trace_boundaries(mask)
    if not boundaries:
        raise ValueError("an empty mask has no polygon")
    if any(signed_area(boundary) < 0 for boundary in boundaries):
        raise ValueError("a mask with a hole cannot be written as COCO polygons")
    for tolerance in (0.7, 0.5, 0.35, 0.2):
        # The middles of the unit steps lie on a straight line where the outline does.
        middles = [(walk + np.roll(walk, -1, axis=0)) / 2 for walk in boundaries]
        outlines = [simplify_closed(points, tolerance) for points in middles]
        if min(len(outline) for outline in outlines) >= 3:
            polygons = [np.round(outline, 2).ravel().tolist() for outline in outlines]
            drawn = polygons_to_mask(polygons, *mask.shape)
            if np.sum(drawn & mask) >= min_iou * np.sum(drawn | mask):
                return polygons
    corners = [simplify_closed(walk.astype(float), 1e-6) for walk in boundaries]
    return [outline.ravel().tolist() for outline in corners]
