"""The mechanism: interleaved windows on channels-last maps (arXiv 2507.18405, section 3)."""

from .backends import describe_backends, describe_operators, use_backend
from .flops import register_flops
from .interleaved_window import (
    interleaved_window_attention,
    interleaved_window_merge,
    interleaved_window_partition,
)

__all__ = [
    "describe_backends",
    "describe_operators",
    "interleaved_window_attention",
    "interleaved_window_merge",
    "interleaved_window_partition",
    "use_backend",
]

register_flops()
