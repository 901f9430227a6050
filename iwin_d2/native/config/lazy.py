"""LazyCall and LazyConfig."""

import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from ...config_overrides import apply_overrides
from ...errors import ConfigError
from .instantiate import display_name
from .python_file import execute, to_config
from .yaml_file import load_yaml, save_yaml, target_name

__all__ = ["LazyCall", "LazyConfig"]


class LazyCall:
    """A call to be described now and carried out later, by `instantiate`.

    `LazyCall(Conv2d)(in_channels=3, out_channels=8)` is a DictConfig of the arguments, which can
    still be edited, and of `_target_`. Arguments are given by name only.

    Args:
        target: what to call: a callable, its dotted name, or another LazyCall that makes it.
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
        return DictConfig({**kwargs, "_target_": target}, flags={"allow_objects": True})


class LazyConfig:
    """Load, save and edit lazy configs."""

    @staticmethod
    def load(filename: str | os.PathLike, keys: str | tuple[str, ...] | None = None) -> Any:
        """Load a config from a Python or yaml file.

        In a Python file, `from ..folder.file import x` takes x from another config file, by the
        file's place; no `__init__.py` is needed. Absolute imports mean what they always do.

        Args:
            filename: a file ending in .py, .yaml or .yml.
            keys: names to return. None: all mappings (and omegaconf lists) of the file whose names
                do not begin with an underscore; other names are working material of the file.

        Returns:
            A DictConfig; with `keys`, the value of that name, or a tuple of values.

        Raises:
            ConfigError: the file, or one that it imports, is missing or broken, or lacks a key.
        """
        filename = os.fspath(filename)
        if not os.path.isfile(filename):
            raise ConfigError(f"config file {filename} does not exist: check the path.")
        suffix = os.path.splitext(filename)[1]
        if suffix == ".py":
            names = execute(filename)
        elif suffix in (".yaml", ".yml"):
            names = load_yaml(filename)
        else:
            raise ConfigError(f"config file {filename} must end in .py, .yaml or .yml.")
        if keys is not None:
            found = tuple(_get(names, k, filename) for k in ([keys] if _is_one(keys) else keys))
            return found[0] if _is_one(keys) else found
        if suffix != ".py":
            return names
        kept = {
            name: to_config(value)
            for name, value in names.items()
            if isinstance(value, (DictConfig, ListConfig, dict)) and not name.startswith("_")
        }
        return DictConfig(kept, flags={"allow_objects": True})

    @staticmethod
    def load_rel(filename: str, keys: str | tuple[str, ...] | None = None) -> Any:
        """Load a config as `load`, from a path relative to the file that calls this."""
        caller = sys._getframe(1).f_code.co_filename
        if caller.startswith("<"):
            raise ConfigError(f"load_rel({filename!r}) must be called in a file, not in {caller}.")
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

    @staticmethod
    def to_py(cfg: DictConfig, prefix: str = "cfg.") -> str:
        """Write a config as Python-like lines, one a value, for people to read and compare."""
        lines = _assignments(OmegaConf.to_container(cfg, resolve=False), prefix.rstrip("."))
        return "\n".join(lines) + "\n"


def _is_one(keys: str | tuple[str, ...]) -> bool:
    return isinstance(keys, str)


def _get(names: Mapping, key: str, filename: str) -> Any:
    if key not in names:
        raise ConfigError(f"config file {filename} does not define {key!r}.")
    return to_config(names[key])


def _assignments(value: Any, path: str) -> list[str]:
    """Write one line for each value at any depth."""
    if isinstance(value, dict) and value:
        return [line for key in value for line in _assignments(value[key], f"{path}.{key}")]
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [line for i in range(len(value)) for line in _assignments(value[i], f"{path}[{i}]")]
    return [f"{path} = {display_name(value) if callable(value) else repr(value)}"]
