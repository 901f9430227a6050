"""The train section: defaults where a config does not name a setting, a sentence for nonsense."""

import pytest
import torch
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from iwin_d2.engine.settings import TrainSettings
from iwin_d2.errors import ConfigError


def read(**train):
    return TrainSettings.read(OmegaConf.create(train))


def test_defaults_are_those_of_detectron2():
    settings = read(amp={"enabled": False})
    assert not settings.amp and settings.amp_dtype is None and settings.clip_grad is None
    assert settings.accumulation_steps == 1 and not settings.deterministic
    assert settings.ema_decay is settings.best_metric is settings.lr_reference_batch_size is None
    assert settings.val_loss_period == 0


def test_the_sections_of_the_common_config():
    settings = read(
        amp={"enabled": True, "dtype": "bfloat16"},
        ema={"enabled": True, "decay": 0.99},
        best_checkpoint={"metric": "bbox/AP", "mode": "min"},
        clip_grad=1,
    )
    assert settings.amp and settings.amp_dtype is torch.bfloat16 and settings.clip_grad == 1.0
    assert settings.ema_decay == 0.99
    assert (settings.best_metric, settings.best_mode) == ("bbox/AP", "min")
    assert read(ema={"enabled": False, "decay": 7}).ema_decay is None


@pytest.mark.parametrize(
    "train",
    [
        {"amp": {"dtype": "float32"}},
        {"amp": {"enabled": "yes"}},
        {"clip_grad": 0},
        {"clip_grad": "1"},
        {"accumulation_steps": 0},
        {"accumulation_steps": 1.5},
        {"accumulation_steps": True},
        {"deterministic": "no"},
        {"ema": {"enabled": True, "decay": 1.0}},
        {"best_checkpoint": {"metric": 3}},
        {"best_checkpoint": {"mode": "best"}},
        {"val_loss_period": -1},
        {"lr_reference_batch_size": 0},
        {"max_iter": 0},
        {"max_iter": "ten"},
        {"eval_period": 1.5},
        {"log_period": 0},
        {"checkpointer": {"period": 0}},
        {"checkpointer": {"period": 1, "max_to_keep": 0}},
        {"seed": "abc"},
        {"seed": None},
        {"output_dir": 3},
        {"init_checkpoint": 5},
        {"ddp": {"fp16_compression": "no"}},
        {"amp": True},
        {"checkpointer": 5},
    ],
)
def test_nonsense_is_named_with_what_is_wanted(train):
    ((name, value),) = train.items()
    if isinstance(value, dict):
        key, value = list(value.items())[-1]
        name = f"{name}.{key}"
    with pytest.raises(ConfigError, match=rf"train\.{name}={value} makes no sense: set it to "):
        read(**train)


def test_a_value_left_open_is_not_passed_over():
    with pytest.raises(MissingMandatoryValue):
        read(clip_grad="???")
