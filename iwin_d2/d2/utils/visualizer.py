"""The door to detectron2.utils.visualizer."""

from ..framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.utils.visualizer import (
        ColorMode,
        VisImage,
        Visualizer,
    )
else:
    from ...native.utils.visualizer import (
        ColorMode,
        VisImage,
        Visualizer,
    )

__all__ = [
    "ColorMode",
    "VisImage",
    "Visualizer",
]
