"""What a predictor is made from: its config, how to load weights, the type of mixed precision."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..checkpoint import Checkpointer, LoadOptions
from ..checkpoint.download import locate
from ..checkpoint.options import make_options
from ..config_overrides import apply_overrides
from ..errors import CheckpointError, ConfigError
from .build import build
from .class_names import read_checkpoint_metadata, settle_num_classes
from .cli import name_missing_values, pick_device
from .config_file import load_config

__all__ = [
    "LoadedModel",
    "amp_dtype",
    "as_config",
    "init_options",
    "is_classifier_config",
    "load_model",
]


@dataclass
class LoadedModel:
    """A model with its weights, and what it takes to use it.

    Attributes:
        cfg: the config as it was used.
        weights: the checkpoint's file.
        metadata: what that says of the classes; None for nothing.
        device: where the model is.
        amp_dtype: of mixed precision; None for full precision.
        mapper: that of cfg.dataloader.test.
        model: in eval mode.
    """

    cfg: DictConfig
    weights: str
    metadata: Any
    device: torch.device
    amp_dtype: torch.dtype | None
    mapper: Callable[[dict], dict]
    model: nn.Module


def load_model(
    cfg: DictConfig,
    weights: str | PathLike | None,
    device: str | torch.device | None,
    amp: bool | str | torch.dtype,
) -> LoadedModel:
    """Build the model and the test's mapper of a config, and load the weights.

    Args:
        cfg: of `as_config`; its number of classes may be filled in.
        weights: as of `Predictor`.
        device: as of `Predictor`.
        amp: as of `Predictor`.

    Raises:
        CheckpointError: there are no weights, or they do not fill the model.
        ConfigError: the config or an argument cannot be used.
    """
    path = str(weights or OmegaConf.select(cfg, "train.init_checkpoint") or "")
    if not path:
        raise CheckpointError(
            "No weights: give a checkpoint of this config (--weights FILE, or the argument "
            "weights), or set train.init_checkpoint."
        )
    wanted = device or OmegaConf.select(cfg, "train.device") or "cuda"
    place = torch.device(pick_device(str(wanted)))
    dtype = amp_dtype(amp, place)
    path = locate(path)
    metadata = read_checkpoint_metadata(path)
    settle_num_classes(cfg, metadata)
    with name_missing_values():
        mapper = build(cfg, "dataloader.test.mapper")
        model: nn.Module = build(cfg, "model").to(place)
    options = init_options(cfg)
    Checkpointer(model).load(path, checkpointables=[], fill=True, options=options)
    return LoadedModel(cfg, path, metadata, place, dtype, mapper, model.eval())


def is_classifier_config(cfg: DictConfig) -> bool:
    """Whether a config is that of a classifier of images or videos.

    Of classifiers the data's part says how to normalise, of all others the model.
    """
    return OmegaConf.select(cfg, "dataloader.pixel_mean") is not None


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
