"""The door to detectron2.engine."""

from .framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.engine import (
        HookBase,
        TrainerBase,
        create_ddp_model,
        default_argument_parser,
        default_setup,
        default_writers,
        hooks,
    )
else:
    from ..native.engine import (
        HookBase,
        TrainerBase,
        create_ddp_model,
        default_argument_parser,
        default_setup,
        default_writers,
        hooks,
    )

__all__ = [
    "HookBase",
    "TrainerBase",
    "create_ddp_model",
    "default_argument_parser",
    "default_setup",
    "default_writers",
    "hooks",
]
