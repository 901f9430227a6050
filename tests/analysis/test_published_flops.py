"""The published FLOPs, from what is counted here and what is counted differently there."""

import math

import pytest

from iwin_d2 import model_zoo
from iwin_d2.analysis import analyze

SIZE = (800, 1280)
# As published, in GFLOPs.
PUBLISHED = {
    "mask_rcnn/mask_rcnn_iwin_t_1x_coco": 268,
    "mask_rcnn/mask_rcnn_iwin_s_1x_coco": 358,
    "cascade_mask_rcnn/cascade_mask_rcnn_iwin_t_1x_coco": 747,
    "cascade_mask_rcnn/cascade_mask_rcnn_iwin_s_1x_coco": 837,
}


def projections_of_padding(bottom_up) -> int:
    """Multiply-adds of queries, keys, values and projections of tokens that pad windows.

    The reference implementation computes them, as any token's; here they are not made.
    """
    total, window = 0, bottom_up.window_size
    for stage, depth in enumerate(bottom_up.depths):
        channels = bottom_up.embed_dim * 2**stage
        sides = [math.ceil(side / (4 * 2**stage)) for side in SIZE]
        padded = [math.ceil(side / window) * window for side in sides]
        total += depth * (math.prod(padded) - math.prod(sides)) * 4 * channels**2
    return total


def test_the_padding_of_the_small_one():
    """By hand: maps of 200 x 320, ... 25 x 40 in windows of 7."""
    bottom_up = model_zoo.get_config("mask_rcnn/mask_rcnn_iwin_t_1x_coco").model.backbone.bottom_up
    extra = (203 * 322 - 64000, 105 * 161 - 16000, 56 * 84 - 4000, 28 * 42 - 1000)
    by_hand = sum(
        depth * tokens * 4 * (96 * 2**stage) ** 2
        for stage, (depth, tokens) in enumerate(zip((2, 2, 6, 2), extra))
    )
    assert projections_of_padding(bottom_up) == by_hand == 3_689_496_576


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_flops_follow_from_what_is_counted(name):
    cfg = model_zoo.get_config(name)
    found = analyze(model_zoo.get(name, device="cpu"), SIZE)
    assert (found.proposals, found.detections) == (1000, 100)
    # MMDetection's counter looks at modules: it sees no products of attentions, but norms, ReLU
    # and biases of convolutions.
    as_published = (
        found.total.multiply_adds
        - found.attention
        + found.elementwise
        + projections_of_padding(cfg.model.backbone.bottom_up)
    )
    assert int(as_published / 1e9) == PUBLISHED[name]  # cut off, not rounded
