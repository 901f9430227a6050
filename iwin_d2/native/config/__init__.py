"""Lazy configs: Python files that describe calls, and what carries the calls out."""

from .instantiate import instantiate
from .lazy import LazyCall, LazyConfig

__all__ = ["LazyCall", "LazyConfig", "instantiate"]
