"""Segmenters as MMSegmentation names them."""

from .layout import Layout, Rule

__all__ = ["MMSEGMENTATION"]

MMSEGMENTATION = Layout(
    title="MMSegmentation's",
    marks=(r"decode_head\.", r"auxiliary_head\."),
    rules=(Rule(r"backbone\.", "backbone."),),
    lacking="this version has no segmentation heads",
)
