"""Counterparts of detectron2.engine. The door lists all names."""
# ruff: noqa: F401

from . import hooks
from .defaults import (
    create_ddp_model,
    default_argument_parser,
    default_setup,
    default_writers,
)
from .train_loop import HookBase, TrainerBase
