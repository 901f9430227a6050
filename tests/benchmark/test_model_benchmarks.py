"""Backbone and video benchmarks: each alternative builds, ours and the published one agree."""

import math

import pytest
import torch
from torch import nn

from iwin_d2.benchmark import backbone, groups, models, profile, video
from iwin_d2.benchmark.models import OURS, PUBLISHED, Goals, build, count_flops
from iwin_d2.benchmark.published import use_published_blocks
from iwin_d2.benchmark.rates import Rates
from iwin_d2.modeling import IwinTransformer

IMAGE = (1, 3, 64, 64)
CLIP = (1, 3, 32, 32, 32)


@pytest.mark.parametrize("name", backbone.MODELS)
def test_backbones_run(name):
    maps = build(backbone.MODELS[name], IMAGE)()
    assert not any(value.requires_grad for value in maps)
    assert 2 * 2 * 768 in [value[0].numel() for value in maps]  # of stride 32


@pytest.mark.parametrize("name", video.MODELS)
def test_video_backbones_run(name):
    (value,) = build(video.MODELS[name], CLIP)()
    assert sorted(value.shape) == [1, 1, 1, 16, 768]  # torchvision's has its channels last


@pytest.mark.parametrize(("made", "shape"), [(backbone.MODELS, IMAGE), (video.MODELS, CLIP)])
def test_ours_and_the_published_formulation_agree(made, shape):
    ours, published = (build(made[name], shape)() for name in (OURS, PUBLISHED))
    torch.testing.assert_close(ours, published, rtol=1e-4, atol=1e-4)


def test_they_agree_on_the_gradients():
    ours, published = (
        build(backbone.MODELS[name], IMAGE, backward=True)() for name in (OURS, PUBLISHED)
    )
    assert all(grad.abs().sum() > 0 for grad in ours)
    for a, b in zip(ours, published, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * b.abs().max().item())


def test_flops_of_the_backbone_by_hand():
    size, dim, depths = 56, 96, (2, 2, 6, 2)
    flops = 2 * size**2 * 48 * dim  # patches
    for stage, depth in enumerate(depths):
        tokens = size**2
        windows = math.ceil(size / 7) ** 2
        block = 2 * tokens * 12 * dim**2 + 2 * windows * 49**2 * 2 * dim
        block += 2 * tokens * 9 * dim if stage < 3 else 0
        flops += depth * block
        if stage < 3:
            size //= 2
            flops += 2 * size**2 * 9 * dim * 2 * dim
            dim *= 2
    assert count_flops(backbone.MODELS[OURS], (1, 3, 224, 224)) == flops
    assert count_flops(backbone.MODELS[PUBLISHED], (1, 3, 224, 224)) == flops


def test_the_table(monkeypatch):
    def timed(candidates, rounds):
        times = {name: (0.5 * i, float(i)) for i, name in enumerate(candidates, 1)}
        return times, Rates(copy=1e9, products={"slow": 1e9, "fast": 4e9})

    peaks = iter((100.0, 250.0))
    monkeypatch.setattr(models, "time_with_rates", timed)
    monkeypatch.setattr(models, "peak_memory", lambda build: next(peaks))
    goals = Goals({PUBLISHED: "at least 1.5"}, "at least 70 %", {PUBLISHED: "at most 0.5"})
    made = dict.fromkeys((OURS, PUBLISHED), _linear)
    lines = models.compare("linear", made, (5, 1000), goals, rounds=1, backward=True)
    # 2 x 5 x 1000 x 20,000 FLOPs forward, three times that with backward, at 4 GFLOP/s: 0.15 s.
    assert f"| {OURS} | 500 | 1.00 | 30 % (at least 70 %) | 100 | 1.00 |" in lines
    expected = f"| {PUBLISHED} | 1000 | 2.00 (at least 1.5) | 15 % | 250 | 0.40 (at most 0.5) |"
    assert expected in lines
    assert "Ours: 0.6 GFLOP. In the same rounds: copies 1.0 GB/s" in "\n".join(lines)


def _linear() -> nn.Module:
    return nn.Linear(1000, 20_000)


@pytest.mark.parametrize("backward", [False, True])
def test_the_profile_knows_every_group(backward):
    made = {OURS: _tiny, PUBLISHED: lambda: use_published_blocks(_tiny())}
    runs = {name: build(make, IMAGE, backward) for name, make in made.items()}
    times = profile.time_by_group(runs, rounds=1, warmup=1)
    everything = {*groups.GROUPS, profile.OTHER} - {groups.OPTIMIZER}
    assert set(times[OURS]) <= everything
    assert set(times[PUBLISHED]) == everything - {groups.BLOCKS}
    assert all(seconds >= 0 for found in times.values() for seconds in found.values())


def test_an_operator_that_no_group_names_has_its_own_row(monkeypatch):
    found = {"GELU": 0.1, profile.OTHER: 0.2, "iwin_d2::new": 0.3, "norms": 0.4}
    monkeypatch.setattr(
        profile, "time_by_group", lambda runs, rounds: {OURS: found, PUBLISHED: {"norms": 0.5}}
    )
    monkeypatch.setattr(profile, "build", lambda *args: None)
    rows = [line for line in profile.benchmark_profile(1) if line.startswith("| ")][1:]
    assert [row.split(" | ")[0] for row in rows[1:5]] == [
        "| GELU",
        "| norms",
        "| iwin_d2::new",
        f"| {profile.OTHER}",
    ]
    assert rows[2] == "| norms | 400 | 40 % | 500 | 100 % |"


def _tiny() -> nn.Module:
    return IwinTransformer(embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])
