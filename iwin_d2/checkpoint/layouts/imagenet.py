"""Image classifiers, and backbones by themselves: their published names are this project's own."""

from .layout import Layout

__all__ = ["IMAGENET"]

IMAGENET = Layout(title="the published classifiers'", marks=(r"patch_embed\.proj\.weight$",))
