"""The door to detectron2.utils.visualizer."""

from ..framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.utils.visualizer import Visualizer
else:
    from ...native.utils.visualizer import Visualizer

__all__ = ["Visualizer"]
