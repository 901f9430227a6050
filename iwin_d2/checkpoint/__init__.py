"""Checkpoints: written whole, read with care, published ones taken as they are."""

from .checkpointer import Checkpointer
from .conversion import convert_checkpoint
from .options import LoadOptions
from .pretrained import load_pretrained
from .report import Report

__all__ = ["Checkpointer", "LoadOptions", "Report", "convert_checkpoint", "load_pretrained"]
