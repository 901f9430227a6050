"""Learning-rate curves against their closed form; parameter groups."""

import math

import pytest
import torch
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
)
from torch import nn

from iwin_d2.d2.solver import LRMultiplier, WarmupParamScheduler, get_default_optimizer_params


def learning_rates(multiplier, max_iter, lr=5.0):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(0))], lr=lr)
    scheduler = LRMultiplier(optimizer, multiplier, max_iter)
    rates = []
    for _ in range(max_iter):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_warmup_then_steps():
    steps = MultiStepParamScheduler(values=[1, 0.1, 0.01], milestones=[10, 15], num_updates=20)
    rates = learning_rates(WarmupParamScheduler(steps, 0.001, 5 / 20), 20)
    expected = [5 * (0.001 + 0.999 * i / 5) for i in range(5)]
    expected += [5.0] * 5 + [0.5] * 5 + [0.05] * 5
    torch.testing.assert_close(rates, expected)


def test_warmup_meets_the_curve_it_replaces():
    cosine = CosineParamScheduler(1.0, 0.0)
    rates = learning_rates(WarmupParamScheduler(cosine, 0.1, 10 / 30), 30)
    arrived = 0.5 * (1 + math.cos(math.pi * 10 / 30))
    expected = [5 * (0.1 + (arrived - 0.1) * i / 10) for i in range(10)]
    expected += [2.5 * (1 + math.cos(math.pi * i / 30)) for i in range(10, 30)]
    torch.testing.assert_close(rates, expected)


def test_rescaled_warmup_squeezes_the_whole_curve_into_the_rest():
    linear = LinearParamScheduler(1.0, 0.0)
    rates = learning_rates(WarmupParamScheduler(linear, 0.5, 0.5, rescale_interval=True), 20)
    expected = [5 * (0.5 + 0.5 * i / 10) for i in range(10)]
    expected += [5 * (1 - i / 10) for i in range(10)]
    torch.testing.assert_close(rates, expected)


def test_constant_warmup_and_unknown_method():
    linear = LinearParamScheduler(1.0, 1.0)
    scheduler = WarmupParamScheduler(linear, 0.25, 0.5, "constant")
    assert scheduler(0.4) == 0.25
    assert scheduler(0.6) == 1.0
    with pytest.raises(ValueError):
        WarmupParamScheduler(linear, 0.25, 0.5, "quadratic")


def test_scheduler_goes_on_where_its_state_says():
    multiplier = LinearParamScheduler(1.0, 0.0)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(0))], lr=1.0)
    first = LRMultiplier(optimizer, multiplier, 10)
    for _ in range(4):
        optimizer.step()
        first.step()
    state = first.state_dict()
    assert set(state) == {"base_lrs", "last_epoch"}
    second = LRMultiplier(optimizer, multiplier, 10)
    second.load_state_dict(state)
    optimizer.step()
    second.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.norm = nn.BatchNorm2d(1)
        self.head = nn.Linear(1, 1)
        self.shared = self.head
        self.frozen = nn.Linear(1, 1).requires_grad_(False)


def settings_by_name(model, groups):
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {}
    for group in groups:
        for parameter in group["params"]:
            assert names[parameter] not in found, "a parameter is in two groups"
            found[names[parameter]] = {k: v for k, v in group.items() if k != "params"}
    return found


def test_default_params_of_norms_and_biases():
    model = Model()
    groups = get_default_optimizer_params(
        model,
        base_lr=1.0,
        weight_decay=0.1,
        weight_decay_norm=0.0,
        bias_lr_factor=2.0,
        weight_decay_bias=0.05,
    )
    found = settings_by_name(model, groups)
    bias = {"lr": 2.0, "weight_decay": 0.05}
    assert found == {
        "conv.weight": {"lr": 1.0, "weight_decay": 0.1},
        "conv.bias": bias,
        "norm.weight": {"lr": 1.0, "weight_decay": 0.0},
        "norm.bias": bias,
        "head.weight": {"lr": 1.0, "weight_decay": 0.1},
        "head.bias": bias,
    }


def test_default_params_take_factors_by_name_and_overrides():
    model = Model()
    groups = get_default_optimizer_params(
        model,
        base_lr=1.0,
        lr_factor_func=lambda name: 0.1 if name.startswith("conv") else 1.0,
        overrides={"weight": {"weight_decay": 0.3}},
    )
    found = settings_by_name(model, groups)
    assert found["conv.weight"] == {"lr": 0.1, "weight_decay": 0.3}
    assert found["head.bias"] == {"lr": 1.0}


def test_bias_settings_conflict_and_factor_without_rate():
    with pytest.raises(ValueError):
        get_default_optimizer_params(
            Model(), weight_decay_bias=0.0, overrides={"bias": {"weight_decay": 1.0}}
        )
    with pytest.raises(ValueError):
        get_default_optimizer_params(Model(), bias_lr_factor=2.0)
