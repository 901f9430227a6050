"""Detectors as MMDetection 2 names them, in the names of Detectron2's models."""

from collections.abc import Iterator

from .layout import Layout, Rule

__all__ = ["MMDETECTION"]


def _second_stage(stage: str, our_stage: str) -> Iterator[Rule]:
    """The rules for box and mask heads; `stage` is there where they are one of a cascade's."""
    box, mask = rf"roi_head\.bbox_head\.{stage}", rf"roi_head\.mask_head\.{stage}"
    yield Rule(rf"{box}fc_cls\.", f"roi_heads.box_predictor.{our_stage}cls_score.")
    yield Rule(rf"{box}fc_reg\.", f"roi_heads.box_predictor.{our_stage}bbox_pred.")
    # Detectron2 counts the layers of heads from 1.
    for theirs, ours in (
        (r"shared_convs\.(\d+)\.conv\.", "conv{}."),
        (r"shared_convs\.(\d+)\.bn\.", "conv{}.norm."),
        (r"shared_fcs\.(\d+)\.", "fc{}."),
    ):
        yield Rule(box + theirs, f"roi_heads.box_head.{our_stage}{ours}", shift=1)
    yield Rule(
        rf"{mask}convs\.(\d+)\.conv\.", f"roi_heads.mask_head.{our_stage}mask_fcn{{}}.", shift=1
    )
    yield Rule(rf"{mask}upsample\.", f"roi_heads.mask_head.{our_stage}deconv.")
    yield Rule(rf"{mask}conv_logits\.", f"roi_heads.mask_head.{our_stage}predictor.")


MMDETECTION = Layout(
    title="MMDetection's",
    marks=(r"neck\.", r"rpn_head\.", r"roi_head\."),
    rules=(
        Rule(r"backbone\.", "backbone.bottom_up."),
        # Detectron2 numbers levels by the power of two of their stride: the first is fpn_*2.
        Rule(r"neck\.lateral_convs\.(\d+)\.conv\.", "backbone.fpn_lateral{}.", shift=2),
        Rule(r"neck\.fpn_convs\.(\d+)\.conv\.", "backbone.fpn_output{}.", shift=2),
        Rule(r"rpn_head\.rpn_conv\.", "proposal_generator.rpn_head.conv."),
        Rule(r"rpn_head\.rpn_cls\.", "proposal_generator.rpn_head.objectness_logits."),
        Rule(r"rpn_head\.rpn_reg\.", "proposal_generator.rpn_head.anchor_deltas."),
        *_second_stage(r"(\d+)\.", "{}."),
        *_second_stage("", ""),
    ),
)
