"""Predictions drawn on images."""

import numpy as np
import torch

from iwin_d2.d2.structures import Boxes, Instances
from iwin_d2.engine.drawing import class_color, draw_predictions, legible_scale

PLACES = [(20, 20, 100, 100), (140, 40, 220, 120)]


def instances(places, classes):
    masks = torch.zeros(len(places), 160, 240, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, places):
        mask[y0:y1, x0:x1] = True
    return Instances(
        (160, 240),
        pred_boxes=Boxes(torch.tensor(places, dtype=torch.float32).reshape(-1, 4)),
        scores=torch.full((len(places),), 0.9),
        pred_classes=torch.tensor(classes, dtype=torch.int64),
        pred_masks=masks,
    )


def middles(picture):
    """The colours in the middle of the two places."""
    return [picture[(y0 + y1) // 2, (x0 + x1) // 2].tolist() for x0, y0, x1, y1 in PLACES]


def test_a_class_keeps_its_colour_whatever_else_is_in_the_picture():
    grey = np.full((160, 240, 3), 128, dtype=np.uint8)
    both = middles(draw_predictions(grey, instances(PLACES, [0, 3]), ["a"]))
    turned = middles(draw_predictions(grey, instances(PLACES[::-1], [3, 0]), ["a"]))
    alone = middles(draw_predictions(grey, instances(PLACES[1:], [3]), None))
    other = middles(draw_predictions(grey, instances(PLACES[1:], [1]), None))
    assert both == turned
    assert both[0] != both[1] == alone[1] != other[1]
    expected = 128 + 0.45 * (255 * np.array(class_color(3)) - 128)
    assert np.abs(both[1] - expected).max() <= 2


def test_pictures_without_predictions_are_only_enlarged():
    grey = np.full((160, 240, 3), 128, dtype=np.uint8)
    picture = draw_predictions(grey, instances([], []), None, legible_scale(grey))
    assert picture.shape == (426, 640, 3)
    assert (picture == 128).all()


def test_boxes_without_masks():
    grey = np.full((160, 240, 3), 128, dtype=np.uint8)
    predictions = instances(PLACES, [0, 1])
    predictions.remove("pred_masks")
    picture = draw_predictions(grey, predictions, None)
    assert middles(picture) == [[128] * 3] * 2
    assert (picture != 128).any()


def test_colours_of_classes_differ():
    colors = np.array([class_color(index) for index in range(12)])
    distances = np.abs(colors[:, None] - colors[None]).sum(-1)
    assert distances[~np.eye(12, dtype=bool)].min() > 0.05
    assert colors.min() >= 0
    assert colors.max() <= 1
