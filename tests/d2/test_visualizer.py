"""What the native visualizer draws, pixel by pixel (Detectron2 draws with matplotlib)."""

import types

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_util

from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.d2.structures import BitMasks, Boxes, Instances, PolygonMasks
from iwin_d2.d2.utils.visualizer import Visualizer

pytestmark = pytest.mark.skipif(USE_DETECTRON2, reason="pixels of the native drawing")

HEIGHT, WIDTH = 60, 80
METADATA = types.SimpleNamespace(thing_classes=["cat", "dog"])
POLYGON = [10.0, 10.0, 50.0, 10.0, 50.0, 40.0, 10.0, 40.0]


def blank(value=100):
    return np.full((HEIGHT, WIDTH, 3), value, dtype=np.uint8)


def square_mask():
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[10:40, 10:50] = True
    return mask


def predictions(count=1, masks=True):
    instances = Instances((HEIGHT, WIDTH))
    instances.pred_boxes = Boxes(torch.tensor([[10.0, 10.0, 50.0, 40.0]]).repeat(count, 1))
    instances.scores = torch.full((count,), 0.9)
    instances.pred_classes = torch.arange(count) % 2
    if masks:
        instances.pred_masks = torch.from_numpy(square_mask())[None].repeat(count, 1, 1)
    return instances


def test_mask_is_filled_translucently_and_outlined():
    drawing = Visualizer(blank()).overlay_instances(
        masks=[square_mask()], assigned_colors=["red"], alpha=0.5
    )
    image = drawing.get_image()
    assert image.dtype == np.uint8 and image.shape == (HEIGHT, WIDTH, 3)
    assert image[25, 30].tolist() == pytest.approx([177.5, 50, 50], abs=1)
    assert image[10, 30].tolist() == image[39, 30].tolist() == [255, 0, 0]
    assert (image[~square_mask()] == 100).all()


def forms_of_the_mask():
    rle = mask_util.encode(np.asfortranarray(square_mask().astype(np.uint8)))
    yield BitMasks(torch.from_numpy(square_mask())[None])
    yield PolygonMasks([[np.array(POLYGON)]])
    yield torch.from_numpy(square_mask())[None].to(torch.uint8)
    yield [[POLYGON]]
    yield [rle]
    # Uncompressed, column by column.
    counts = [10 * HEIGHT + 10, *([30] + [30] * 1) * 39, 30, 30 * HEIGHT - 60 + 20 + 30]
    counts[-1] = HEIGHT * WIDTH - sum(counts[:-1])
    yield [{"size": [HEIGHT, WIDTH], "counts": counts}]


@pytest.mark.parametrize("masks", forms_of_the_mask(), ids=lambda m: type(m).__name__)
def test_all_forms_of_masks_draw_the_same(masks):
    expected = Visualizer(blank()).overlay_instances(masks=square_mask()[None]).get_image()
    found = Visualizer(blank()).overlay_instances(masks=masks).get_image()
    np.testing.assert_array_equal(found, expected)


def test_scale_enlarges_picture_and_coordinates():
    drawing = Visualizer(blank(), scale=2.5).overlay_instances(
        boxes=np.array([[10, 10, 50, 40]]), masks=square_mask()[None], assigned_colors=["lime"]
    )
    image = drawing.get_image()
    assert image.shape == (150, 200, 3)
    changed = (image != 100).any(2)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert np.abs([rows[0] - 25, rows[-1] - 99, columns[0] - 25, columns[-1] - 124]).max() <= 1


@pytest.mark.parametrize("box", [[0, 0, 80, 60], [70, 50, 200, 200], [-50, -50, 5, 5]])
def test_labels_lie_inside_the_picture(box):
    plain = Visualizer(blank()).overlay_instances(boxes=np.array([box]), assigned_colors=["red"])
    drawn = Visualizer(blank()).overlay_instances(
        boxes=np.array([box]), labels=["a long name"], assigned_colors=["red"]
    )
    label = (plain.get_image() != drawn.get_image()).any(2)
    # A chip cut off by the border would show fewer dark pixels than one in the middle.
    middle = Visualizer(blank()).overlay_instances(
        boxes=np.array([[10, 30, 11, 31]]), labels=["a long name"], assigned_colors=["red"]
    )
    reference = middle.get_image()
    dark = (reference < 80).all(2).sum()
    assert (drawn.get_image()[label] < 80).all(1).sum() >= 0.9 * dark


def test_labels_of_equal_boxes_do_not_cover_each_other():
    one = Visualizer(blank(255), METADATA).draw_instance_predictions(predictions(1, masks=False))
    two = Visualizer(blank(255), METADATA).draw_instance_predictions(predictions(2, masks=False))
    dark = [(drawing.get_image() < 90).all(2).sum() for drawing in (one, two)]
    assert dark[1] > 1.7 * dark[0]


def test_instances_have_colours_of_their_own():
    instances = predictions(3)
    instances.pred_boxes = Boxes(
        torch.tensor([[0.0, 50, 10, 60], [20, 50, 30, 60], [40, 50, 50, 60]])
    )
    instances.remove("pred_masks")
    instances.remove("scores")
    metadata = types.SimpleNamespace(thing_classes=["", ""])  # boxes without labels
    image = Visualizer(blank(), metadata).draw_instance_predictions(instances).get_image()
    assert len({tuple(image[59, x]) for x in (5, 25, 45)}) == 3


def test_nothing_and_nonsense_draw_nothing():
    instances = predictions()[torch.zeros(1, dtype=torch.bool)]
    image = Visualizer(blank(), METADATA).draw_instance_predictions(instances).get_image()
    np.testing.assert_array_equal(image, blank())
    drawing = Visualizer(blank()).overlay_instances(
        boxes=np.array([[np.nan, 0, 1, 1]]), labels=["x"], masks=[np.zeros((HEIGHT, WIDTH))]
    )
    np.testing.assert_array_equal(drawing.get_image(), blank())
