"""The mechanism: interleaved windows on channels-last maps (arXiv 2507.18405, section 3)."""

from .interleaved_window import (
    interleaved_window_attention,
    interleaved_window_merge,
    interleaved_window_partition,
)

__all__ = [
    "interleaved_window_attention",
    "interleaved_window_merge",
    "interleaved_window_partition",
]
