"""Models built from interleaved windows."""

from .iwin import IwinTransformer, iwin_base, iwin_large, iwin_small, iwin_tiny

__all__ = ["IwinTransformer", "iwin_base", "iwin_large", "iwin_small", "iwin_tiny"]
