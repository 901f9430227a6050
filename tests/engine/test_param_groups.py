"""Which parameters weight decay holds for."""

import torch
from torch import nn

from iwin_d2.engine.param_groups import get_param_groups


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
