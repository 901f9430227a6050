"""The door to detectron2.utils.env."""

from ..framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.utils.env import seed_all_rng
else:
    from ...native.utils.env import seed_all_rng

__all__ = ["seed_all_rng"]
