"""The door to detectron2.utils.logger."""

from ..framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.utils.logger import setup_logger
else:
    from ...native.utils.logger import setup_logger

__all__ = ["setup_logger"]
