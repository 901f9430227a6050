"""The one door to Detectron2.

The modules of this package mirror Detectron2's public ones. Each name is Detectron2's own object
where Detectron2 runs, else that of `iwin_d2.native`; see `iwin_d2.d2.framework` for the choice.
"""

from .framework import FRAMEWORK, USE_DETECTRON2, describe_framework

__all__ = ["FRAMEWORK", "USE_DETECTRON2", "describe_framework"]
