"""Objects drawn on images: boxes, masks and labels."""

import colorsys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..d2.utils.visualizer import Visualizer

__all__ = ["class_color", "draw_objects", "draw_predictions", "legible_scale"]

# Pixels of the longer side: smaller pictures are enlarged, or labels would hide the objects.
_LEGIBLE = 640

# Detectron2 draws with Matplotlib, which is not made for several threads at once.
_DRAWING = threading.Lock()

Color = tuple[float, float, float]


def class_color(index: int) -> Color:
    """A vivid colour, RGB in [0, 1]; neighbouring numbers are far apart in hue."""
    return colorsys.hsv_to_rgb((0.02 + 0.618034 * index) % 1.0, (0.9, 0.65)[index % 2], 1.0)


def legible_scale(image: np.ndarray) -> float:
    """How much to enlarge an image [H, W, 3] so that labels are readable and hide little."""
    return max(1.0, _LEGIBLE / max(image.shape[:2]))


def draw_objects(
    image: np.ndarray,
    *,
    boxes: np.ndarray,
    masks: Any,
    labels: Sequence[str],
    colors: Sequence[Color],
    scale: float = 1.0,
) -> np.ndarray:
    """Draw n objects.

    Args:
        image: RGB, uint8 [H, W, 3].
        boxes: [n, 4] (x0, y0, x1, y1) in pixels.
        masks: n of them, in any form that the framework's Visualizer takes; None for none.
        labels: n texts.
        colors: n colours.
        scale: enlarges the picture.

    Returns:
        RGB, uint8, [scale * H, scale * W, 3], rounded.
    """
    with _DRAWING:
        visualizer = Visualizer(image, None, scale=scale)
        drawn = visualizer.get_output()
        if len(labels):
            drawn = visualizer.overlay_instances(
                boxes=boxes, masks=masks, labels=labels, assigned_colors=colors, alpha=0.45
            )
        return drawn.get_image()


def draw_predictions(
    image: np.ndarray, instances, class_names: Sequence[str] | None, scale: float = 1.0
) -> np.ndarray:
    """Draw boxes, masks, names and scores.

    Args:
        image: RGB, uint8 [H, W, 3].
        instances: predictions on it, on the CPU.
        class_names: by class number; classes without a name are shown as numbers.
        scale: enlarges the picture.

    Returns:
        RGB, uint8, [scale * H, scale * W, 3], rounded.
    """
    classes = instances.pred_classes.tolist()
    names = class_names or ()
    labels = [
        f"{names[index] if index < len(names) else index} {100 * score:.0f}%"
        for index, score in zip(classes, instances.scores.tolist())
    ]
    return draw_objects(
        image,
        boxes=instances.pred_boxes.tensor.numpy(),
        masks=list(instances.pred_masks.numpy()) if instances.has("pred_masks") else None,
        labels=labels,
        colors=[class_color(index) for index in classes],
        scale=scale,
    )
