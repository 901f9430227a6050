"""What a predictor is made from: its config, how to load weights, the type of mixed precision."""

import copy
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from ..checkpoint import LoadOptions
from ..checkpoint.options import make_options
from ..config_overrides import apply_overrides
from ..errors import ConfigError
from .detection import load_config

__all__ = ["amp_dtype", "as_config", "init_options"]


def as_config(
    config: str | PathLike | Mapping | DictConfig, overrides: Sequence[str]
) -> DictConfig:
    """A config of the predictor's own, overrides applied.

    Raises:
        ConfigError: it is none, has no model or mapper, or an override cannot be applied.
    """
    if isinstance(overrides, str):
        raise ConfigError(f"overrides={overrides!r}: give a list of strings.")
    if isinstance(config, (str, PathLike)):
        name = str(config)
        if "://" not in name and not Path(name).is_file():
            raise ConfigError(f"There is no config file {name}: correct the path.")
        cfg = load_config(name, list(overrides))
    elif isinstance(config, Mapping):
        name, cfg = "The config", copy.deepcopy(config)
        if not isinstance(cfg, DictConfig):
            cfg = DictConfig(dict(cfg), flags={"allow_objects": True})
        apply_overrides(cfg, overrides)
    else:
        raise ConfigError(
            f"The config is a {type(config).__name__}: give a lazy config's file, or what "
            "LazyConfig.load returns for it."
        )
    for key in ("model", "dataloader.test.mapper"):
        if OmegaConf.select(cfg, key) is None:
            raise ConfigError(
                f"{name} has no {key}: the predictor wants a lazy config with model and "
                "dataloader.test.mapper."
            )
    return cfg


def init_options(cfg: DictConfig) -> LoadOptions:
    """How the config wants checkpoints to be loaded."""
    options = OmegaConf.select(cfg, "train.init_options")
    values = OmegaConf.to_container(options) if isinstance(options, DictConfig) else {}
    return make_options("train.init_options.", **values)


def amp_dtype(amp: bool | str | torch.dtype, device: torch.device) -> torch.dtype | None:
    """The type of mixed precision; None for full precision."""
    if amp is False or amp is None:
        return None
    if amp is True:
        poor = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.float16 if poor else torch.bfloat16
    dtype = getattr(torch, str(amp).removeprefix("torch."), None)
    if dtype not in (torch.float16, torch.bfloat16):
        raise ConfigError(f"amp={amp}: give True, False, 'float16' or 'bfloat16'.")
    return dtype
