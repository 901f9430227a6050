"""A misspelt key of the train section is an error, not a setting that nothing reads."""

import pytest
from omegaconf import OmegaConf

from iwin_d2.engine.config_check import check_config_keys
from iwin_d2.errors import ConfigError


def config(**changes):
    cfg = OmegaConf.create(
        {
            "model": {},
            "dataloader": {"train": {}, "test": {}},
            "optimizer": {},
            "lr_multiplier": {},
            "train": {
                "output_dir": "out",
                "device": "cpu",
                "max_iter": 1,
                "checkpointer": {"period": 1},
                "eval_period": 1,
                "log_period": 1,
            },
        }
    )
    for path, value in changes.items():
        OmegaConf.update(cfg, path.replace("__", "."), value, force_add=True)
    return cfg


def test_a_whole_config_and_keys_of_ones_own_pass():
    check_config_keys(config(dataset={"json": "x"}, train__experiment="a", train__amp={}), "c.py")


@pytest.mark.parametrize(
    ("key", "right"),
    [
        ("train.max_itr", "train.max_iter"),
        ("train.eval_periods", "train.eval_period"),
        ("train.amp.enable", "train.amp.enabled"),
        ("optimiser", "optimizer"),
        ("train.checkpointer.max_keep", "train.checkpointer.max_to_keep"),
    ],
)
def test_near_misses_are_named(key, right):
    with pytest.raises(ConfigError, match=rf"c\.py sets {key}.*Did you mean {right}\?"):
        check_config_keys(config(**{key.replace(".", "__"): 5}), "c.py")


@pytest.mark.parametrize(
    "path", ["model", "train", "optimizer", "dataloader.train", "train.max_iter"]
)
def test_missing_parts_are_named(path):
    cfg = config()
    *parents, key = path.split(".")
    section = OmegaConf.select(cfg, parents[0]) if parents else cfg
    del section[key]
    with pytest.raises(ConfigError, match=rf"c\.py has no {path}"):
        check_config_keys(cfg, "c.py")


@pytest.mark.parametrize("path", ["model", "optimizer", "dataloader.train", "train.max_iter"])
def test_parts_that_are_none_are_missing(path):
    cfg = config()
    OmegaConf.update(cfg, path, None, merge=False)
    with pytest.raises(ConfigError, match=rf"c\.py has no {path}"):
        check_config_keys(cfg, "c.py")


@pytest.mark.parametrize("value", [-1, 1.5, "x", None, True])
def test_counts_of_loaders_are_whole_numbers(value):
    cfg = config()
    cfg.dataloader.test = {"num_workers": value}
    with pytest.raises(ConfigError, match=rf"dataloader\.test\.num_workers={value} makes no sense"):
        check_config_keys(cfg, "c.py")
    cfg.dataloader.test = {"num_workers": "${..count}"}
    cfg.dataloader.count = value
    check_config_keys(cfg, "c.py")


def test_evaluation_needs_no_training_parts():
    cfg = config()
    del cfg["optimizer"], cfg["lr_multiplier"], cfg["dataloader"]["train"]
    check_config_keys(cfg, "c.py", training=False)
