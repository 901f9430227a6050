"""Which parameters weight decay holds for, and how fast each layer of the backbone learns."""

import re
from pathlib import Path

import pytest
import torch
from fvcore.common.param_scheduler import ConstantParamScheduler
from torch import nn

from iwin_d2.d2.config import instantiate
from iwin_d2.d2.solver import LRMultiplier, get_default_optimizer_params
from iwin_d2.engine.detection import load_config
from iwin_d2.engine.param_groups import get_param_groups, layer_lr_factors
from iwin_d2.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


class Detector(nn.Module):
    """The names that matter: a norm in the backbone, one in the neck, one in a head."""

    def __init__(self):
        super().__init__()
        block = nn.ModuleDict({"norm1": nn.LayerNorm(2), "fc": nn.Linear(2, 2)})
        frozen = nn.ModuleDict({"norm": nn.LayerNorm(2)}).requires_grad_(False)
        bottom_up = nn.ModuleDict({"block": block, "patch_embed": frozen})
        self.backbone = nn.ModuleDict({"bottom_up": bottom_up, "fpn": nn.Linear(2, 2)})
        self.backbone["fpn"].norm = nn.LayerNorm(2)
        self.box_head = nn.Sequential(nn.Linear(2, 2))
        self.box_head[0].norm = nn.BatchNorm1d(2)
        self.tied = self.box_head[0]


def names(model, group):
    by_parameter = {parameter: name for name, parameter in model.named_parameters()}
    return [by_parameter[parameter] for parameter in group["params"]]


def test_only_the_backbones_norms_do_not_decay():
    model = Detector()
    decaying, exempt = get_param_groups(model, lr=1e-4, weight_decay=0.05)
    assert names(model, exempt) == [
        "backbone.bottom_up.block.norm1.weight",
        "backbone.bottom_up.block.norm1.bias",
    ]
    assert exempt["weight_decay"] == 0.0 and decaying["weight_decay"] == 0.05
    assert exempt["lr"] == decaying["lr"] == 1e-4
    assert "backbone.bottom_up.block.fc.bias" in names(model, decaying)
    assert "box_head.0.norm.weight" in names(model, decaying)
    assert "backbone.fpn.norm.weight" in names(model, decaying)
    # Every trainable parameter once, no frozen one.
    together = decaying["params"] + exempt["params"]
    assert len({id(p) for p in together}) == len(together)
    assert {id(p) for p in together} == {id(p) for p in model.parameters() if p.requires_grad}


def test_rates_and_decay_left_out_are_the_optimizers():
    model = Detector()
    groups = get_param_groups(model)
    assert all("lr" not in group for group in groups)
    optimizer = torch.optim.AdamW(groups, lr=3e-4, weight_decay=0.07)
    assert [group["lr"] for group in optimizer.param_groups] == [3e-4, 3e-4]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.07, 0.0]


def test_other_rules_and_an_empty_group():
    model = Detector()
    decaying, exempt = get_param_groups(model, no_decay=("bias",), within="box_head.")
    assert names(model, exempt) == ["box_head.0.bias", "box_head.0.norm.bias"]
    (everything,) = get_param_groups(model, no_decay=())
    assert len(everything["params"]) == len(decaying["params"]) + len(exempt["params"])


def test_a_prefix_that_no_parameter_has_is_said(caplog):
    import logging

    logger = logging.getLogger("iwin_d2.engine.param_groups")
    logger.addHandler(caplog.handler)
    try:
        get_param_groups(Detector(), within="backbone.botom_up.")
    finally:
        logger.removeHandler(caplog.handler)
    assert "backbone.botom_up." in caplog.text


# Of Iwin-T: 12 blocks, so that what is not backbone is layer 13.
LAYERS = {
    "backbone.bottom_up.patch_embed.proj.weight": 0,
    "backbone.bottom_up.layers.0.blocks.0.attn.qkv.weight": 1,
    "backbone.bottom_up.layers.0.blocks.1.norm2.bias": 2,
    "backbone.bottom_up.layers.0.downsample.conv.weight": 2,
    "backbone.bottom_up.layers.1.blocks.0.mlp.fc1.weight": 3,
    "backbone.bottom_up.layers.1.downsample.norm.weight": 4,
    "backbone.bottom_up.layers.2.blocks.5.mlp.fc2.bias": 10,
    "backbone.bottom_up.layers.3.blocks.1.norm1.weight": 12,
    "backbone.bottom_up.norm0.weight": 13,
    "backbone.fpn_lateral2.weight": 13,
    "proposal_generator.rpn_head.conv.weight": 13,
    "roi_heads.box_head.fc1.weight": 13,
}


def detector_config(*overrides):
    config = "projects/mask_rcnn/configs/mask_rcnn_iwin_t_1x_coco.py"
    return load_config(str(ROOT / config), list(overrides))


def rates(optimizer, model):
    by_parameter = {p: g["lr"] for g in optimizer.param_groups for p in g["params"]}
    return {name: by_parameter[parameter] for name, parameter in model.named_parameters()}


@pytest.fixture(scope="module")
def detector():
    with torch.device("meta"):
        return instantiate(detector_config().model)


def build_optimizer(cfg, model):
    cfg.optimizer.params.model = model
    return instantiate(cfg.optimizer)


def test_layer_decay_is_an_override_and_gives_each_layer_its_rate(detector):
    cfg = detector_config("optimizer.params.layer_decay=0.5", "optimizer.lr=0.002")
    optimizer = build_optimizer(cfg, detector)
    found = rates(optimizer, detector)
    for name, layer in LAYERS.items():
        assert found[name] == pytest.approx(0.002 * 0.5 ** (13 - layer)), name
    # Monotonic over all blocks in their order, and nothing else is slowed down.
    blocks = [
        {r for n, r in found.items() if f"layers.{stage}.blocks.{block}." in n}
        for stage, depth in enumerate((2, 2, 6, 2))
        for block in range(depth)
    ]
    assert all(len(block) == 1 for block in blocks)
    flat = [block.pop() for block in blocks]
    assert flat == sorted(flat) and len(set(flat)) == 12
    assert {r for n, r in found.items() if "bottom_up" not in n} == {0.002}


def test_layer_decay_leaves_weight_decay_as_it_is(detector):
    plain = build_optimizer(detector_config(), detector)
    layered = build_optimizer(detector_config("optimizer.params.layer_decay=0.9"), detector)
    decay = [
        {p: g["weight_decay"] for g in o.param_groups for p in g["params"]}
        for o in (plain, layered)
    ]
    assert decay[0] == decay[1]
    assert len(plain.param_groups) == 2
    assert sum(len(g["params"]) for g in layered.param_groups) == len(list(detector.parameters()))


def test_the_schedule_keeps_the_layers_ratios(detector):
    optimizer = build_optimizer(detector_config("optimizer.params.layer_decay=0.7"), detector)
    before = rates(optimizer, detector)
    LRMultiplier(optimizer, ConstantParamScheduler(0.1), max_iter=10)
    after = rates(optimizer, detector)
    assert all(after[name] == pytest.approx(0.1 * rate) for name, rate in before.items())


def test_the_factors_serve_detectron2s_own_function(detector):
    factors = layer_lr_factors(0.5, depths=[2, 2, 6, 2])
    assert {name: factors(name) for name in LAYERS} == {
        name: 0.5 ** (13 - layer) for name, layer in LAYERS.items()
    }
    groups = get_default_optimizer_params(detector, base_lr=1.0, lr_factor_func=factors)
    by_parameter = {p: g["lr"] for g in groups for p in g["params"]}
    for name, parameter in detector.named_parameters():
        assert by_parameter[parameter] == factors(name)
    # A backbone by itself, as in a classifier.
    alone = layer_lr_factors(0.5, depths=[1, 1], within="")
    assert alone("layers.1.blocks.0.attn.qkv.weight") == alone("layers.1.downsample.x") == 0.5
    assert alone("head.weight") == 1.0


@pytest.mark.parametrize("value", [0, -0.5, 1.5, True, "fast"])
def test_a_layer_decay_that_makes_no_sense_is_refused(value):
    with pytest.raises(ConfigError, match=re.escape(f"layer_decay={value} makes no sense: set")):
        layer_lr_factors(value, depths=[2, 2])


def test_layer_decay_wants_a_rate_and_an_iwin_backbone():
    with pytest.raises(ConfigError, match="wants the learning rate that it lowers"):
        get_param_groups(Detector(), layer_decay=0.8)
    with pytest.raises(ConfigError, match=r"under 'backbone.bottom_up', and this one has none"):
        get_param_groups(Detector(), lr=0.1, layer_decay=0.8)
