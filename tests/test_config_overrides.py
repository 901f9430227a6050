"""Overrides: values as people type them, and errors that name the nearest right key."""

import math

import pytest
from omegaconf import DictConfig, OmegaConf

from iwin_d2.config_overrides import apply_overrides, did_you_mean, locate, parse_value
from iwin_d2.d2.config import LazyCall as L
from iwin_d2.errors import ConfigError


def backbone(embed_dim, depths, drop_path_rate=0.0):
    return embed_dim, depths, drop_path_rate


def open_ended(**kwargs):
    return kwargs


def config() -> DictConfig:
    return OmegaConf.create(
        {
            "model": {
                "backbone": {"bottom_up": L(backbone)(embed_dim=96, depths=[2, 2, 6, 2])},
                "num_classes": 80,
                "head": {"num_classes": "${..num_classes}"},
                "alias": "${.head}",
            },
            "optimizer": {"lr": 1e-4, "betas": [0.9, 0.999]},
            "heads": [{"iou": 0.5}, {"iou": 0.6}],
            "empty": None,
        },
        flags={"allow_objects": True},
    )


@pytest.mark.parametrize(
    "text, value",
    [
        ("1", 1),
        ("-1", -1),
        ("1e-4", 1e-4),
        ("0.5", 0.5),
        ("True", True),
        ("false", False),
        ("null", None),
        ("None", None),
        ("'1'", "1"),
        ('"a b"', "a b"),
        ("", ""),
        ("word", "word"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("a=b", "a=b"),
        ("path/to/file.json", "path/to/file.json"),
        ("${..num_classes}", "${..num_classes}"),
        ("[1, 2]", [1, 2]),
        ("(1, 2)", (1, 2)),
        ("[res2,res3]", ["res2", "res3"]),
        ("['res2', 1e-4]", ["res2", 1e-4]),
        ("[]", []),
        ("{a: 1, b: [x]}", {"a": 1, "b": ["x"]}),
        ("{'a': 1}", {"a": 1}),
        ("inf", math.inf),
        ("1+2j", "1+2j"),
        ("+-inf", "+-inf"),
        ("5in", "5in"),
    ],
)
def test_values(text, value):
    parsed = parse_value(text)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize("text", ["[1, 2", "{a: 1", "[1]]"])
def test_a_broken_list_is_an_error(text):
    with pytest.raises(ConfigError, match="brackets"):
        parse_value(text)


def test_existing_keys_are_set_in_place():
    cfg = config()
    overrides = ["optimizer.lr=2e-3", "heads.1.iou=0.7", "heads[0].iou=0.4", "empty=[a]"]
    assert apply_overrides(cfg, overrides) is cfg
    assert cfg.optimizer.lr == 2e-3
    assert [head.iou for head in cfg.heads] == [0.4, 0.7]
    assert cfg.empty == ["a"]
    assert cfg.model.backbone.bottom_up._target_ is backbone


def test_an_interpolation_can_be_replaced_and_made():
    cfg = apply_overrides(
        config(), ["model.head.num_classes=3", "optimizer.lr=${model.num_classes}"]
    )
    assert (cfg.model.head.num_classes, cfg.model.num_classes, cfg.optimizer.lr) == (3, 80, 80)


def test_an_argument_of_the_target_that_the_config_does_not_mention():
    cfg = apply_overrides(config(), ["model.backbone.bottom_up.drop_path_rate=0.3"])
    assert cfg.model.backbone.bottom_up.drop_path_rate == 0.3


def test_a_target_given_by_name_is_looked_up():
    cfg = OmegaConf.create({"layer": {"_target_": "torch.nn.Linear", "in_features": 3}})
    apply_overrides(cfg, ["layer.out_features=4"])
    with pytest.raises(ConfigError, match=r"Did you mean layer\.bias"):
        apply_overrides(cfg, ["layer.biass=4"])


def test_a_target_that_takes_everything_takes_a_new_name():
    cfg = OmegaConf.create({"x": L(open_ended)(num_workers=1)}, flags={"allow_objects": True})
    assert apply_overrides(cfg, ["x.b=2"]).x.b == 2
    with pytest.raises(ConfigError, match=r"Did you mean x\.num_workers"):
        apply_overrides(cfg, ["x.num_worker=2"])
    assert apply_overrides(cfg, ["+x.num_worker=2"]).x.num_worker == 2


@pytest.mark.parametrize(
    "override, nearest",
    [
        ("model.backbone.botom_up.embed_dim=1", "model.backbone.bottom_up.embed_dim"),
        ("model.backbone.bottom_up.drop_path=1", "model.backbone.bottom_up.drop_path_rate"),
        ("modle.num_classes=1", "model.num_classes"),
        ("optimiser.lr=1", "optimizer.lr"),
        ("lr=1", "optimizer.lr"),
        ("num_classes=1", "model.num_classes"),
        ("optimizer={beta: [1, 2]}", "optimizer.betas"),
    ],
)
def test_a_misspelt_key_names_the_nearest(override, nearest):
    cfg = config()
    before = OmegaConf.to_container(cfg)
    with pytest.raises(ConfigError, match=f"Did you mean .*{nearest}") as caught:
        apply_overrides(cfg, [override])
    assert override in str(caught.value)
    assert OmegaConf.to_container(cfg) == before


@pytest.mark.parametrize("override", ["optimizer.lr", "=3", "a..b=3", "+=3", ".lr=1", "--resume"])
def test_malformed(override):
    with pytest.raises(ConfigError, match="malformed"):
        apply_overrides(config(), [override])


@pytest.mark.parametrize(
    "override, reason",
    [
        ("optimizer.lr=${model", "not a reference such as"),
        ("empty={1j: 2}", "cannot stand in a config"),
        ("missing.below=1", "missing is '???', which has no keys: set missing itself"),
    ],
)
def test_a_value_that_no_config_can_hold(override, reason):
    cfg = config()
    cfg.missing = "???"
    with pytest.raises(ConfigError) as caught:
        apply_overrides(cfg, [override])
    assert override in str(caught.value) and reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_keys_below_a_number_or_a_reference():
    with pytest.raises(ConfigError, match=r"optimizer\.lr is 0\.0001, which has no keys"):
        apply_overrides(config(), ["optimizer.lr.value=1"])
    with pytest.raises(ConfigError, match=r"model\.alias is only a reference, \$\{\.head\}"):
        apply_overrides(config(), ["model.alias.num_classes=1"])
    with pytest.raises(ConfigError, match="heads is a list of 2"):
        apply_overrides(config(), ["heads.2.iou=1"])


def test_nothing_near_lists_what_there_is():
    with pytest.raises(ConfigError, match="optimizer has: betas, lr"):
        apply_overrides(config(), ["optimizer.zzzzzzzz=1"])


def test_plus_adds_new_keys():
    cfg = apply_overrides(config(), ["+a.b.c=1", "+optimizer.lr=3", "+model.head.new={x: 1}"])
    assert (cfg.a.b.c, cfg.optimizer.lr, cfg.model.head.new.x) == (1, 3, 1)


def test_a_mapping_is_merged():
    cfg = apply_overrides(config(), ["optimizer={lr: 1.0}"])
    assert cfg.optimizer == {"lr": 1.0, "betas": [0.9, 0.999]}


def test_a_frozen_config_can_be_overridden_and_stays_frozen():
    cfg = config()
    OmegaConf.set_struct(cfg, True)
    assert apply_overrides(cfg, ["optimizer.lr=1", "+new=2"]).new == 2
    assert OmegaConf.is_struct(cfg)


def test_missing_values_can_be_set():
    cfg = OmegaConf.create({"data": {"json": "???"}})
    assert apply_overrides(cfg, ["data.json=a.json"]).data.json == "a.json"
    with pytest.raises(ConfigError, match=r"data\.json"):
        apply_overrides(OmegaConf.create({"data": {"json": "???"}}), ["data.jsn=a.json"])


def test_locate():
    assert locate("math.pi") == math.pi
    assert locate("collections.abc.Mapping").__name__ == "Mapping"
    with pytest.raises(ConfigError, match="Did you mean Conv2d"):
        locate("torch.nn.Conv2dd")
    with pytest.raises(ConfigError, match="no module 'no_such_package'"):
        locate("no_such_package.x")
    with pytest.raises(ConfigError, match="dotted name"):
        locate("a..b")


def test_did_you_mean():
    assert did_you_mean("colour", ["color", "size"]) == " Did you mean color?"
    assert did_you_mean("xyz", ["color"]) == ""
