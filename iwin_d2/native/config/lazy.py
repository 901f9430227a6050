"""LazyCall, which describes a call, and LazyConfig, which loads and saves files of such calls."""

import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig

from ...config_overrides import apply_overrides
from ...errors import ConfigError
from .python_file import execute, to_config
from .yaml_file import load_yaml, save_yaml, target_name


class LazyCall:
    """A call to be described now and carried out later, by `instantiate`.

    `LazyCall(Conv2d)(in_channels=3, out_channels=8)` is a DictConfig of the arguments, which can
    still be edited, and of `_target_`: a callable, its dotted name, or a LazyCall that makes it.
    """

    def __init__(self, target: Callable | str | Mapping):
        if not (callable(target) or isinstance(target, (str, Mapping))):
            raise TypeError(f"a LazyCall needs something that can be called, got {target!r}")
        self._target = target

    def __call__(self, **kwargs: Any) -> DictConfig:
        target = self._target
        # omegaconf refuses containers as values, and takes dataclasses for schemas.
        if dataclasses.is_dataclass(target) or any(target is t for t in (dict, list, tuple)):
            target = target_name(target) or target
        return to_config({**kwargs, "_target_": target})


class LazyConfig:
    """Load, save and edit lazy configs."""

    @staticmethod
    def load(filename: str | os.PathLike, keys: str | tuple[str, ...] | None = None) -> Any:
        """Load a config from a Python (.py) or yaml file, or the values of some of its names.

        Without `keys`, all mappings (and omegaconf lists) whose names do not begin with an
        underscore, as one DictConfig. In a Python file, `from ..folder.file import x` takes x from
        another config file, by the file's place; absolute imports mean what they always do.

        ConfigError: the file, or one that it imports, is missing or broken, or lacks a key.
        """
        filename = os.fspath(filename)
        if not os.path.isfile(filename):
            raise ConfigError(f"config file {filename} does not exist: check the path.")
        if filename.endswith(".py"):
            names = execute(filename)
        elif filename.endswith((".yaml", ".yml")):
            names = load_yaml(filename)
        else:
            raise ConfigError(f"config file {filename} must end in .py, .yaml or .yml.")
        if isinstance(keys, str):
            return _get(names, keys, filename)
        if keys is not None:
            return tuple(_get(names, key, filename) for key in keys)
        if isinstance(names, (DictConfig, ListConfig)):
            return names
        kept = {
            name: to_config(value)
            for name, value in names.items()
            if isinstance(value, (DictConfig, ListConfig, dict)) and not name.startswith("_")
        }
        return to_config(kept)

    @staticmethod
    def load_rel(filename: str, keys: str | tuple[str, ...] | None = None) -> Any:
        """Load a config as `load`, from a path relative to the file that calls this."""
        caller = sys._getframe(1).f_code.co_filename
        return LazyConfig.load(os.path.join(os.path.dirname(caller), filename), keys)

    @staticmethod
    def save(cfg: DictConfig | ListConfig, filename: str | os.PathLike) -> None:
        """Write a config to a yaml file that `load` reads.

        Functions and classes are written by their names. What yaml cannot express, such as a
        lambda, is written as its text, with a warning: such a file does not load as it was.
        """
        save_yaml(cfg, filename)

    @staticmethod
    def apply_overrides(cfg: DictConfig, overrides: Iterable[str]) -> DictConfig:
        """Set values in place from `key=value` strings: `iwin_d2.config_overrides`."""
        return apply_overrides(cfg, overrides)


def _get(names: Mapping, key: str, filename: str) -> Any:
    if key not in names:
        raise ConfigError(f"config file {filename} does not define {key!r}.")
    return to_config(names[key])
