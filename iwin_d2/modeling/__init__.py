"""Models built from interleaved windows."""

from .iwin import IwinTransformer, iwin_base, iwin_large, iwin_small, iwin_tiny
from .yacs import add_iwin_config  # the import registers the builders, too

__all__ = [
    "IwinTransformer",
    "add_iwin_config",
    "iwin_base",
    "iwin_large",
    "iwin_small",
    "iwin_tiny",
]
