"""The segmenter's benchmark: each alternative labels and trains; what parts and windows take."""

import math
import sys
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

from iwin_d2 import model_zoo
from iwin_d2.benchmark import parts, profile, segmentation, whole_models
from iwin_d2.benchmark.rates import Rates
from iwin_d2.d2.config import instantiate
from iwin_d2.ops import use_backend

SIZE = (64, 96)
MAKERS = (segmentation._ours, segmentation._torchvision)
RATES = Rates(copy=1e9, products={"one": 1e10})


def tiny():
    """UPerNet of few channels."""
    cfg = model_zoo.get_config(segmentation._CONFIG).model
    cfg.backbone.update(embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])
    cfg.sem_seg_head.channels = 24
    cfg.sem_seg_head.auxiliary.channels = 16
    return instantiate(cfg)


def small_torchvision():
    """DeepLabV3 on a smaller backbone."""
    return deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=150, aux_loss=True
    )


@pytest.fixture
def quick(monkeypatch):
    """Rates of the machine that nobody waits for."""

    def once(runs, rounds, *args):
        for run in runs.values():
            for _ in range(rounds):
                run()
        return dict.fromkeys(runs, (0.5, 2.0)), RATES

    for module in (segmentation, whole_models):
        monkeypatch.setattr(module, "time_with_rates", once)


@pytest.mark.parametrize("make", MAKERS)
def test_each_labels_every_pixel(make):
    labels = segmentation.build_inference(make, SIZE)()
    assert labels.shape == SIZE and labels.dtype == torch.int32
    assert labels.min() >= 0 and labels.max() < 150


def test_ours_labels_the_same_with_all_scores():
    plain, streamed = (
        segmentation.build_inference(tiny, SIZE, scores=scores)() for scores in (True, False)
    )
    assert (plain == streamed).float().mean() > 0.999
    assert len(plain.unique()) > 1


@pytest.mark.parametrize("make", [tiny, segmentation._torchvision])
def test_each_learns(make):
    train = segmentation.build_training(make, SIZE)
    losses = [train(), train()]
    assert all(math.isfinite(loss) for loss in losses) and losses[0] != losses[1]
    # Both with the auxiliary loss: what 150 classes cost at random, 1.4 times.
    assert losses[0] == pytest.approx(1.4 * math.log(150), rel=0.3)


def test_checkpointing_is_on():
    assert all(stage.use_checkpoint for stage in segmentation._checkpointing().backbone.layers)
    assert not any(stage.use_checkpoint for stage in segmentation._ours().backbone.layers)


def test_parts_make_up_the_whole():
    model = segmentation._model(tiny)
    run = segmentation.build_inference(lambda: model, SIZE)
    expected = run()
    model.eval()
    seconds = parts.seconds_by_part(model, run)
    assert set(seconds) == set(parts.PARTS) and all(value > 0 for value in seconds.values())
    flops = parts.count_flops_by_part(model, run)
    with use_backend("reference"), FlopCounterMode(display=False) as counter:
        run()
    assert sum(flops.values()) == counter.get_total_flops()
    assert set(flops) == set(parts.PARTS) and flops["backbone"] > flops["classifier"] > 0
    # 24 channels, 1x1: of the maps of 16 x 24, 8 x 12 and 4 x 6 cells.
    cells = 16 * 24 * 16 + 8 * 12 * 32 + 4 * 6 * 64
    assert flops["lateral 1x1 convolutions"] == 2 * 24 * cells
    assert torch.equal(run(), expected) and "layers" not in vars(model.sem_seg_head)


def test_sliding_windows_are_counted():
    passes, seconds, peak = segmentation._slide(tiny, 160, (64, 43))
    assert passes == 4 * 4 and seconds > 0 and math.isfinite(peak)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_the_tables(quick, monkeypatch):
    monkeypatch.setattr(whole_models, "peak_memory", lambda build: 7.0)
    monkeypatch.setattr(segmentation, "in_own_process", lambda function: function())
    makers = {segmentation.OURS: tiny}
    lines = segmentation.compare_inference(makers, SIZE, 1)
    assert lines[0] == "### UPerNet, inference, 1x64x96"
    assert f"| {segmentation.OURS} | 500 | 2.00 | 7 |" in lines
    assert f"| {segmentation.SCORES} | 500 | 2.00 | 7 |" in lines
    lines = segmentation.compare_training(makers, SIZE, 1)
    assert f"| {segmentation.OURS} | 500 | 2.00 | 7 |" in lines
    lines = segmentation.profile_inference(tiny, SIZE, 2)
    assert [line.split(" | ")[0] for line in lines[4:11]] == [f"| {x}" for x in parts.PARTS]
    lines = list(segmentation.measure_sliding_windows(tiny, (64, 128), (64, 43)))
    cells = [line.strip("| ").split(" | ") for line in lines[4:6]]
    assert [row[:2] for row in cells] == [["64x64", "1"], ["128x128", "9"]]


def test_training_is_profiled(monkeypatch):
    monkeypatch.setattr(profile, "time_by_group", partial(profile.time_by_group, warmup=0))
    lines = segmentation.profile_training({segmentation.OURS: tiny}, SIZE, 1)
    groups = [line.split(" | ")[0] for line in lines]
    assert "| matrix products, dense convolutions" in groups and "| norms" in groups


def test_the_benchmark_has_all_tables(quick, monkeypatch):
    for name, value in {
        "INFERENCE": (SIZE,),
        "TRAINING": SIZE,
        "SLIDING": (64, 128),
        "WINDOW": 64,
        "STRIDE": 43,
        "_ours": tiny,
        "_checkpointing": tiny,
        "_torchvision": small_torchvision,
        "in_own_process": lambda function: function(),
        "profile_in_turn": lambda title, runs, rounds: [f"### {title}: {', '.join(runs)}"],
    }.items():
        monkeypatch.setattr(segmentation, name, value)
    monkeypatch.setattr(whole_models, "peak_memory", lambda build: 7.0)
    lines = list(segmentation.benchmark_segmentation(rounds=1))
    assert [line for line in lines if line.startswith("#")] == [
        "### UPerNet, inference, 1x64x96",
        "### UPerNet, training iteration, 2x64x96",
        "### UPerNet, inference, 1x64x96: where the time goes",
        "### UPerNet, training iteration, 2x64x96: where the time goes: "
        f"{segmentation.OURS}, {segmentation.TORCHVISION}",
        "### UPerNet, sliding windows of 64x64, stride 43",
    ]
    compared = [line for line in lines if line.startswith(f"| {segmentation.TORCHVISION} ")]
    assert len(compared) == 2
