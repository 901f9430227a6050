"""Video classifiers as MMAction names them."""

from .layout import Layout, Rule

__all__ = ["MMACTION"]

MMACTION = Layout(
    title="MMAction's",
    marks=(r"cls_head\.", r"backbone\.time_embed$"),
    rules=(Rule(r"backbone\.", "backbone."),),
    lacking="this version has no video classifier",
)
