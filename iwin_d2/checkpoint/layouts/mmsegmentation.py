"""Segmenters as MMSegmentation names them, in the names of this project's heads."""

from collections.abc import Iterator

from .layout import Layout, Rule

__all__ = ["MMSEGMENTATION"]


def _convolution(theirs: str, ours: str) -> Iterator[Rule]:
    """The rules for a convolution and its norm."""
    yield Rule(rf"{theirs}\.conv\.", f"{ours}.")
    yield Rule(rf"{theirs}\.bn\.", f"{ours}.norm.")


MMSEGMENTATION = Layout(
    title="MMSegmentation's",
    marks=(r"decode_head\.", r"auxiliary_head\."),
    rules=(
        Rule(r"backbone\.", "backbone."),
        *_convolution(
            r"decode_head\.psp_modules\.(\d+)\.1", "sem_seg_head.pyramid_pooling.convs.{}"
        ),
        *_convolution(r"decode_head\.bottleneck", "sem_seg_head.pyramid_pooling.bottleneck"),
        *_convolution(r"decode_head\.lateral_convs\.(\d+)", "sem_seg_head.lateral_convs.{}"),
        *_convolution(r"decode_head\.fpn_convs\.(\d+)", "sem_seg_head.fpn_convs.{}"),
        *_convolution(r"decode_head\.fpn_bottleneck", "sem_seg_head.fpn_bottleneck"),
        Rule(r"decode_head\.conv_seg\.", "sem_seg_head.predictor."),
        *_convolution(r"auxiliary_head\.convs\.(\d+)", "sem_seg_head.auxiliary.convs.{}"),
        Rule(r"auxiliary_head\.conv_seg\.", "sem_seg_head.auxiliary.predictor."),
    ),
    lacking="this version has no such segmentation heads",
)
