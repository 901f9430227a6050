"""Transforms against brute force: points, boxes and polygons must go where the pixels go."""

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iwin_d2.d2.data import transforms as T
from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.d2.structures import polygons_to_bitmask

cuts_polygons = pytest.mark.skipif(
    USE_DETECTRON2 and importlib.util.find_spec("shapely") is None,
    reason="Detectron2 cuts polygons with shapely, which is not installed",
)
native_only = pytest.mark.skipif(USE_DETECTRON2, reason="more than Detectron2 offers")

SIZES = st.integers(2, 24)
few = settings(max_examples=150, deadline=None)


def filled(height, width, x0, y0, x1, y1):
    image = np.zeros((height, width), dtype=np.uint8)
    image[y0:y1, x0:x1] = 1
    return image


def tight_box(image):
    ys, xs = np.nonzero(image)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@st.composite
def boxes_in_images(draw):
    height, width = draw(SIZES), draw(SIZES)
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return (
        height,
        width,
        x0,
        y0,
        draw(st.integers(x0 + 1, width)),
        draw(st.integers(y0 + 1, height)),
    )


@st.composite
def rectangles(draw, height, width):
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return x0, y0, draw(st.integers(1, width - x0)), draw(st.integers(1, height - y0))


def corners(x0, y0, x1, y1):
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=np.float64)


@few
@given(boxes_in_images(), st.booleans())
def test_flips(scene, horizontal):
    height, width, *box = scene
    image = filled(*scene)
    flip = T.HFlipTransform(width) if horizontal else T.VFlipTransform(height)
    flipped = flip.apply_image(image)
    assert np.array_equal(flipped, image[:, ::-1] if horizontal else image[::-1])
    assert flip.apply_box(np.array([box], dtype=float))[0].tolist() == tight_box(flipped)
    (polygon,) = flip.apply_polygons([corners(*box)])
    assert np.array_equal(polygons_to_bitmask([polygon.ravel()], height, width), flipped > 0)


@few
@given(st.data())
def test_crops(data):
    height, width, *box = data.draw(boxes_in_images())
    image = filled(height, width, *box)
    x0, y0, w, h = data.draw(rectangles(height, width))
    crop = T.CropTransform(x0, y0, w, h)
    cropped = crop.apply_image(image)
    assert np.array_equal(cropped, image[y0 : y0 + h, x0 : x0 + w])
    moved = crop.apply_box(np.array([box], dtype=float))[0].clip(0, [w, h, w, h])
    if cropped.any():
        assert moved.tolist() == tight_box(cropped)
    else:
        assert moved[2] <= moved[0] or moved[3] <= moved[1]


@cuts_polygons
@few
@given(st.data())
def test_crops_of_polygons(data):
    height, width, *box = data.draw(boxes_in_images())
    x0, y0, w, h = data.draw(rectangles(height, width))
    cropped = filled(height, width, *box)[y0 : y0 + h, x0 : x0 + w]
    polygons = T.CropTransform(x0, y0, w, h).apply_polygons([corners(*box)])
    assert (len(polygons) > 0) == bool(cropped.any())
    mask = polygons_to_bitmask([p.ravel() for p in polygons], h, w)
    assert np.array_equal(mask, cropped > 0)


def area(polygon):
    x, y = polygon[:, 0], polygon[:, 1]
    return 0.5 * abs(x @ np.roll(y, -1) - y @ np.roll(x, -1))


@cuts_polygons
@few
@given(st.integers(0, 10**6))
def test_crops_of_any_polygon_keep_what_is_inside(seed):
    """Area and outline of star-shaped polygons, against sampling on a fine grid."""
    rng = np.random.default_rng(seed)
    points = rng.integers(4, 14)  # round the centre, so that no two edges cross
    angles = (np.arange(points) + rng.uniform(-0.4, 0.4, points)) * 2 * np.pi / points
    radii = rng.uniform(2, 12, points)
    polygon = np.stack([12 + radii * np.cos(angles), 12 + radii * np.sin(angles)], axis=1)
    x0, y0, w, h = 6, 4, 7, 11
    original = polygon.copy()
    parts = T.CropTransform(x0, y0, w, h).apply_polygons([polygon])
    assert np.array_equal(polygon, original)
    for part in parts:
        assert len(part) >= 3
        assert part.min() >= -1e-9 and (part.max(axis=0) <= [w + 1e-9, h + 1e-9]).all()
    fine = 16
    whole = polygons_to_bitmask([polygon.ravel() * fine], 24 * fine, 24 * fine)
    expected = whole[y0 * fine : (y0 + h) * fine, x0 * fine : (x0 + w) * fine]
    cut = polygons_to_bitmask([part.ravel() * fine for part in parts], h * fine, w * fine)
    assert (cut != expected).mean() < 0.005
    assert sum(map(area, parts)) == pytest.approx(expected.sum() / fine**2, abs=0.5)


@cuts_polygons
def test_a_concave_polygon_falls_into_parts():
    comb = np.array([[0, 0], [9, 0], [9, 8], [6, 8], [6, 3], [3, 3], [3, 8], [0, 8]], dtype=float)
    parts = T.CropTransform(0, 4, 9, 4).apply_polygons([comb])
    mask = polygons_to_bitmask([part.ravel() for part in parts], 4, 9)
    expected = np.zeros((4, 9), dtype=bool)
    expected[:, :3] = expected[:, 6:] = True
    assert np.array_equal(mask, expected)
    assert sum(map(area, parts)) == 24


@cuts_polygons
def test_a_polygon_that_only_touches_the_crop_is_dropped():
    crop = T.CropTransform(5, 0, 5, 10)
    assert crop.apply_polygons([corners(0, 0, 5, 5)]) == []
    assert crop.apply_polygons([corners(0, 0, 4, 5)]) == []


def test_crop_and_pad_undo_each_other():
    image = np.arange(48, dtype=np.uint8).reshape(6, 8)
    pad = T.PadTransform(2, 1, 3, 4, orig_w=8, orig_h=6, pad_value=9, seg_pad_value=255)
    padded = pad.apply_image(image)
    assert padded.shape == (11, 13) and padded[0, 0] == 9 and padded[1, 2] == image[0, 0]
    assert pad.apply_segmentation(image)[0, 0] == 255
    assert np.array_equal(pad.inverse().apply_image(padded), image)
    assert pad.apply_coords(np.array([[0.0, 0.0]])).tolist() == [[2, 1]]


@few
@given(boxes_in_images(), st.integers(1, 4), st.integers(1, 4))
def test_resizes_by_whole_factors(scene, fy, fx):
    height, width, *box = scene
    resize = T.ResizeTransform(height, width, height * fy, width * fx)
    mask = resize.apply_segmentation(filled(*scene))
    assert np.array_equal(mask, np.kron(filled(*scene), np.ones((fy, fx), dtype=np.uint8)))
    assert np.allclose(resize.apply_box(np.array([box], dtype=float))[0], tight_box(mask))
    points = corners(*box)
    assert np.allclose(resize.apply_coords(points.copy()), points * [fx, fy])
    assert np.allclose(resize.inverse().apply_coords(points * [fx, fy]), points)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 3)])
def test_uint8_is_resized_by_pillow(shape):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    resized = T.ResizeTransform(20, 30, 13, 45).apply_image(image)
    assert resized.shape == (13, 45, *shape[2:]) and resized.dtype == np.uint8
    squeezed = image[:, :, 0] if shape[2:] == (1,) else image
    expected = np.asarray(Image.fromarray(squeezed).resize((45, 13), Image.BILINEAR))
    assert np.array_equal(resized.reshape(expected.shape), expected)


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 3)])
def test_floats_are_interpolated(shape):
    y, x = np.mgrid[:8, :6]
    ramp = (10 * y + x).astype(np.float32)
    image = ramp if len(shape) == 2 else np.repeat(ramp[:, :, None], 3, axis=2)
    resized = T.ResizeTransform(8, 6, 16, 12).apply_image(image)
    assert resized.dtype == np.float32 and resized.shape == (16, 12, *shape[2:])
    inner = resized[1:-1, 1:-1].reshape(14, 10, -1)[:, :, 0]
    ys, xs = np.mgrid[1:15, 1:11]
    assert np.allclose(inner, 10 * ((ys + 0.5) / 2 - 0.5) + (xs + 0.5) / 2 - 0.5, atol=1e-4)


@native_only
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16, bool])
def test_labels_of_other_types_resize_like_uint8(dtype):
    labels = np.random.default_rng(0).integers(0, 2, (11, 17))
    resize = T.ResizeTransform(11, 17, 29, 8)
    resized = resize.apply_segmentation(labels.astype(dtype))
    assert resized.dtype == dtype
    assert np.array_equal(resized, resize.apply_segmentation(labels.astype(np.uint8)))


def image_of(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    "size, short, longest, expected",
    [
        ((480, 640), 800, 1333, (800, 1067)),
        ((640, 480), 800, 1333, (1067, 800)),
        ((100, 1000), 800, 1333, (133, 1333)),
        ((333, 500), 600, 10**6, (600, 901)),
        ((50, 50), 20, 100, (20, 20)),
    ],
)
def test_resize_shortest_edge(size, short, longest, expected):
    assert T.ResizeShortestEdge.get_output_shape(*size, short, longest) == expected
    resize = T.ResizeShortestEdge(short, longest).get_transform(image_of(*size))
    assert (resize.new_h, resize.new_w) == expected


def test_resize_shortest_edge_styles():
    np.random.seed(0)
    image = image_of(20, 20)

    def drawn(augmentation):
        return {augmentation.get_transform(image).new_h for _ in range(200)}

    assert drawn(T.ResizeShortestEdge((10, 13), sample_style="range")) == {10, 11, 12, 13}
    assert drawn(T.ResizeShortestEdge([10, 13, 16], sample_style="choice")) == {10, 13, 16}
    with pytest.raises(AssertionError):
        T.ResizeShortestEdge([10, 13, 16], sample_style="range")
    with pytest.raises(AssertionError):
        T.ResizeShortestEdge(10, sample_style="any")


@pytest.mark.parametrize(
    "kind, size, heights, widths",
    [
        ("relative", (0.5, 0.25), {20}, {15}),
        ("relative_range", (0.5, 0.9), set(range(20, 41)), set(range(54, 61))),
        ("absolute", (30, 100), {30}, {60}),
        ("absolute_range", (35, 50), set(range(35, 41)), set(range(35, 51))),
    ],
)
def test_random_crop_sizes_and_places(kind, size, heights, widths):
    np.random.seed(0)
    image = image_of(40, 60)
    crops = [T.RandomCrop(kind, size).get_transform(image) for _ in range(300)]
    assert {crop.h for crop in crops} <= heights and {crop.w for crop in crops} <= widths
    if len(heights) > 1:
        assert len({crop.h for crop in crops}) > 3 and len({crop.w for crop in crops}) > 3
    assert {crop.h for crop in crops} >= {min(heights), max(heights)} or kind == "relative_range"
    for crop in crops:
        assert 0 <= crop.x0 <= 60 - crop.w and 0 <= crop.y0 <= 40 - crop.h
        assert crop.apply_image(image).shape == (crop.h, crop.w, 3)
    assert min(crop.y0 for crop in crops) == 0
    assert any(crop.y0 == 40 - crop.h for crop in crops)


def test_random_flip():
    np.random.seed(0)
    image = image_of(4, 6)
    flips = [type(T.RandomFlip(0.3).get_transform(image)) for _ in range(500)]
    assert 0.22 < np.mean([kind is T.HFlipTransform for kind in flips]) < 0.38
    always = T.RandomFlip(1.0, horizontal=False, vertical=True).get_transform(image)
    assert isinstance(always, T.VFlipTransform)
    for both in (True, False):
        with pytest.raises(ValueError):
            T.RandomFlip(horizontal=both, vertical=both)


def test_augmentation_list_moves_image_boxes_and_labels_together():
    np.random.seed(0)
    scene = (20, 30, 4, 6, 14, 18)
    image = np.repeat(filled(*scene)[:, :, None] * 255, 3, axis=2)
    aug_input = T.AugInput(image, boxes=np.array([scene[2:]], dtype=float), sem_seg=filled(*scene))
    augmentations = T.AugmentationList(
        [T.RandomFlip(1.0), T.Resize((40, 90)), T.HFlipTransform(90), T.RandomFlip(0.0)]
    )
    transforms = augmentations(aug_input)
    assert isinstance(transforms, T.TransformList) and len(transforms) == 4
    assert aug_input.image.shape == (40, 90, 3)
    assert np.allclose(aug_input.boxes[0], [12, 12, 42, 36])
    assert tight_box(aug_input.sem_seg) == [12, 12, 42, 36]
    assert np.array_equal(transforms.apply_image(image), aug_input.image)


def test_own_augmentations_get_the_inputs_they_name():
    class CropToBoxes(T.Augmentation):
        def get_transform(self, image, boxes):
            x0, y0 = boxes[:, :2].min(axis=0).astype(int)
            x1, y1 = boxes[:, 2:].max(axis=0).astype(int)
            return T.CropTransform(x0, y0, x1 - x0, y1 - y0)

    aug_input = T.AugInput(image_of(20, 30), boxes=np.array([[3.0, 4, 8, 9], [5, 5, 20, 15]]))
    CropToBoxes()(aug_input)
    assert aug_input.image.shape == (11, 17, 3)
    assert aug_input.boxes[0].tolist() == [0, 0, 5, 5]


def test_augmentations_show_their_arguments():
    assert "prob=0.3" in repr(T.RandomFlip(prob=0.3))
    assert "0.5" in repr(T.RandomCrop("relative", (0.5, 0.5)))


def test_the_seed_decides():
    def draw():
        np.random.seed(7)
        aug_input = T.AugInput(image_of(40, 60))
        T.AugmentationList(
            [T.RandomFlip(), T.ResizeShortestEdge((20, 60)), T.RandomCrop("relative", (0.5, 0.5))]
        )(aug_input)
        return aug_input.image

    assert np.array_equal(draw(), draw())
