"""Checkpoints: written whole, read with care."""

from .checkpointer import Checkpointer

__all__ = ["Checkpointer"]
