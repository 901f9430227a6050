"""Files in this project's own names, which are Detectron2's where it has such a part."""

from .layout import Layout

__all__ = ["OWN"]

OWN = Layout(title="this project's", marks=(r"",), is_published=False)
