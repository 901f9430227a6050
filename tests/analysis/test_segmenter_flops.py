"""What segmenters hold and do, by hand, and the published figures of UPerNet."""

import math
from pathlib import Path

import pytest
import torch

from iwin_d2.analysis import analyze, module_table
from iwin_d2.checkpoint.architecture import HEADS, SIZES
from iwin_d2.d2.config import LazyConfig, instantiate

MODELS = Path(__file__).resolve().parents[2] / "configs/common/models"
# Parameters in millions and GFLOPs at 512 x 2048, as published.
PUBLISHED = {"Iwin-T": (61.9, 946), "Iwin-S": (83.2, 1038), "Iwin-B": (124.8, 1189)}


def make(head="upernet", size=None, **backbone):
    config = LazyConfig.load(str(MODELS / f"{head}_iwin.py")).model
    if size is not None:
        embed_dim, depths = SIZES[size]
        backbone = {"embed_dim": embed_dim, "depths": list(depths), "num_heads": list(HEADS[size])}
    config.backbone.get("bottom_up", config.backbone).update(backbone)
    return config


SMALL = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}


def test_a_upernet_by_hand():
    config = make(**SMALL)
    config.sem_seg_head.update(num_classes=3, channels=10)
    torch.manual_seed(0)
    model = instantiate(config).eval()
    found = analyze(model, (64, 90))  # the last column of windows is not whole
    head = {
        module.name.removeprefix("sem_seg_head."): module.multiply_adds
        for module in found.modules
        if module.name.startswith("sem_seg_head.")
    }
    cells = [16 * 23, 8 * 12, 4 * 6, 2 * 3]
    for level, count in enumerate(cells[:3]):
        assert head[f"lateral_convs.{level}"] == count * 8 * 2**level * 10
        assert head[f"fpn_convs.{level}"] == count * 9 * 10 * 10
    assert head["fpn_bottleneck"] == cells[0] * 9 * 40 * 10  # whole, though computed with fewer
    assert head["predictor"] == cells[0] * 10 * 3
    pooled = [scale**2 * 64 * 10 for scale in (1, 2, 3, 6)]
    assert [head[f"pyramid_pooling.convs.{i}"] for i in range(4)] == pooled
    assert head["pyramid_pooling.bottleneck"] == cells[3] * 9 * (64 + 40) * 10
    assert head["auxiliary"] == 0
    by_name = {module.name: module for module in found.modules}
    auxiliary = model.sem_seg_head.auxiliary.parameters()
    assert by_name["sem_seg_head.auxiliary"].parameters == sum(p.numel() for p in auxiliary)
    assert found.total.parameters == sum(p.numel() for p in model.parameters())
    assert found.total.multiply_adds == sum(
        by_name[part].multiply_adds for part in ("backbone", "sem_seg_head")
    )
    assert (found.proposals, found.detections) == (None, None)
    assert "One image of 64 x 90 pixels (height x width).\n" in module_table(found, 2)


def test_a_semantic_fpn_by_hand():
    config = make("semantic_fpn", **SMALL)
    config.backbone.out_channels = 6
    config.sem_seg_head.update(num_classes=3, conv_dims=32)
    found = analyze(instantiate(config), (64, 90))  # padded to 64 x 96
    by_name = {module.name: module.multiply_adds for module in found.modules}
    cells = [16 * 24, 8 * 12, 4 * 6, 2 * 3]
    first = [count * 9 * 6 * 32 for count in cells]
    second = [count * 9 * 32 * 32 for count in cells]
    assert by_name["sem_seg_head.p2"] == first[0]
    assert by_name["sem_seg_head.p3"] == first[1]
    assert by_name["sem_seg_head.p4"] == first[2] + second[1]
    assert by_name["sem_seg_head.p5"] == first[3] + second[2] + second[1]
    assert by_name["sem_seg_head.predictor"] == cells[0] * 32 * 3


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_parameters(size):
    """With the auxiliary head, which training alone needs."""
    with torch.device("meta"):
        model = instantiate(make(size=size))
    count = sum(p.numel() for p in model.parameters())
    assert round(count / 1e6, 1) == PUBLISHED[size][0]


def projections_of_padding(backbone, image) -> int:
    """Multiply-adds of the projections of tokens that pad windows, which are not made here."""
    total = 0
    for stage, depth in enumerate(backbone.depths):
        sides = [math.ceil(side / (4 * 2**stage)) for side in image]
        padded = [math.ceil(side / backbone.window_size) * backbone.window_size for side in sides]
        channels = backbone.embed_dim * 2**stage
        total += depth * (math.prod(padded) - math.prod(sides)) * 4 * channels**2
    return total


@pytest.mark.slow
@pytest.mark.parametrize("size", PUBLISHED)
def test_published_flops_follow_from_what_is_counted(size):
    """As for detectors (test_published_flops.py); one of them is rounded up, two are cut off."""
    config, image = make(size=size), (512, 2048)
    found = analyze(instantiate(config), image)
    as_published = (
        found.total.multiply_adds
        - found.attention
        + found.elementwise
        + projections_of_padding(config.backbone, image)
    )
    assert abs(as_published / 1e9 - PUBLISHED[size][1]) < 0.7
