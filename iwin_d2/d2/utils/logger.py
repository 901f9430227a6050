"""The door to detectron2.utils.logger."""

from ..framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.utils.logger import (
        create_small_table,
        log_every_n_seconds,
        setup_logger,
    )
else:
    from ...native.utils.logger import (
        create_small_table,
        log_every_n_seconds,
        setup_logger,
    )

__all__ = [
    "create_small_table",
    "log_every_n_seconds",
    "setup_logger",
]
