"""The door to detectron2.utils.file_io."""

from ..framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.utils.file_io import (
        PathManager,
    )
else:
    from ...native.utils.file_io import (
        PathManager,
    )

__all__ = [
    "PathManager",
]
