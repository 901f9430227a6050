"""The door to detectron2.utils.registry."""

from ..framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.utils.registry import (
        Registry,
    )
else:
    from ...native.utils.registry import (
        Registry,
    )

__all__ = [
    "Registry",
]
