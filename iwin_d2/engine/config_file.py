"""Reading config files, by either framework, and saying what keeps one from being read."""

import os
import traceback

from omegaconf import DictConfig

from ..config_overrides import apply_overrides
from ..d2.config import LazyConfig
from ..errors import ConfigError, UserError
from .build import TRACEBACK_HINT, reason_of

__all__ = ["load_config", "read_config"]

_WHAT_THERE_IS = (
    "a config for this tool has model, dataloader, optimizer, lr_multiplier and train (see "
    "configs/common/train.py)"
)


def load_config(config_file: str, overrides: list[str]) -> DictConfig:
    """Load a lazy config and apply overrides such as "train.max_iter=100".

    Raises:
        ConfigError: if the file cannot be read, or an override cannot be applied.
    """
    cfg = read_config(config_file)
    flags = [text for text in overrides if text.startswith("-")]
    if flags:
        raise ConfigError(f"{flags[0]} stands among the overrides: put flags before them.")
    return apply_overrides(cfg, overrides)


def read_config(config_file: str) -> DictConfig:
    """Read a lazy config, .py or .yaml.

    Raises:
        ConfigError: there is no such file, it fails, or it is something else; names the line.
    """
    if not config_file:
        raise ConfigError("No config: give --config-file FILE.")
    if "://" not in config_file and not os.path.isfile(config_file):
        kind = "is not a file" if os.path.exists(config_file) else "does not exist"
        raise ConfigError(f"config file {config_file} {kind}: check the path.")
    try:
        cfg = LazyConfig.load(config_file)
    except UserError:
        raise
    except Exception as error:  # a config is a program, and can fail in any way
        raise _failure(config_file, error) from error
    if not isinstance(cfg, DictConfig) or not cfg:
        raise ConfigError(f"config file {config_file} defines no parts: {_WHAT_THERE_IS}.")
    if "MODEL" in cfg and "model" not in cfg:
        raise ConfigError(
            f"config file {config_file} is one of Detectron2's older kind (MODEL, SOLVER, ...), "
            f"not a lazy config: {_WHAT_THERE_IS}."
        )
    return cfg


def _failure(config_file: str, error: Exception) -> ConfigError:
    """What a config file failed with, and in which line of which file."""
    if isinstance(error, SyntaxError) and isinstance(error.__cause__, SyntaxError):
        error = error.__cause__  # Detectron2's own says less
    if isinstance(error, SyntaxError):
        file, line = error.filename or "<", error.lineno
        file = config_file if file.startswith("<") else file  # "<unknown>"
        reason = f"{type(error).__name__}: {error.msg}: {(error.text or '').strip()}".rstrip(": ")
    else:
        # Code at the top of a file is what configs consist of.
        frames = traceback.extract_tb(error.__traceback__)
        places = [(f.filename, f.lineno) for f in frames if f.name == "<module>"]
        file, line = places[-1] if places else (config_file, None)
        reason = reason_of(error)
    where = f"config file {file}" + (f", line {line}" if line else "")
    if file != config_file:
        where += f" (read for {config_file})"
    return ConfigError(f"{where}: {reason} {TRACEBACK_HINT}.")
