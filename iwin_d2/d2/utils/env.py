"""The door to detectron2.utils.env and detectron2.utils.collect_env."""

from ..framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.utils.collect_env import collect_env_info
    from detectron2.utils.env import seed_all_rng
else:
    from ...native.utils.env import collect_env_info, seed_all_rng

__all__ = ["collect_env_info", "seed_all_rng"]
