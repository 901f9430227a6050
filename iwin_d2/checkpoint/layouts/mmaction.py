"""Video classifiers as MMAction names them, which is as this project does."""

from .layout import Layout, Rule

__all__ = ["MMACTION"]

MMACTION = Layout(
    title="MMAction's",
    marks=(r"cls_head\.", r"backbone\.time_embed$"),
    rules=(Rule(r"backbone\.", "backbone."), Rule(r"cls_head\.fc_cls\.", "cls_head.fc_cls.")),
    lacking="video classifiers have no such part here",
)
