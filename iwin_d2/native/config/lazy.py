"""LazyCall, which describes a call, and LazyConfig, which loads and saves files of such calls."""

import dataclasses
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ...config_overrides import apply_overrides, locate
from ...errors import ConfigError
from ...files import atomic_write
from .python_file import execute, to_config


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
            target = _importable_name(target) or target
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
            names = _load_yaml(filename)
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
        lost: list[str] = []
        content = _expressible(OmegaConf.to_container(cfg, resolve=False), "", lost)
        if lost:
            logging.getLogger(__name__).warning(
                "The config saved to %s does not load again: yaml cannot express %s.",
                filename,
                ", ".join(lost),
            )
        options = {"allow_unicode": True, "width": 9999, "sort_keys": False}
        with atomic_write(filename, "w") as file:
            yaml.dump(content, file, Dumper=_Dumper, **options)

    @staticmethod
    def apply_overrides(cfg: DictConfig, overrides: Iterable[str]) -> DictConfig:
        """Set values in place from `key=value` strings: `iwin_d2.config_overrides`."""
        return apply_overrides(cfg, overrides)


def _get(names: Mapping, key: str, filename: str) -> Any:
    if key not in names:
        raise ConfigError(f"config file {filename} does not define {key!r}.")
    return to_config(names[key])


def _importable_name(target: Any) -> str | None:
    """Return the dotted name that imports this very object; None if there is none."""
    module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    if not module or not name or "<" in name:
        return None
    try:
        found = locate(f"{module}.{name}")
    except (ConfigError, ImportError):
        return None
    return f"{module}.{name}" if found is target else None


_NAME_TAG = "tag:yaml.org,2002:python/name:"


class _Name(str):
    """The name of a function or class, which is to be loaded again as that."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(_Name, lambda dumper, name: dumper.represent_scalar(_NAME_TAG + name, ""))


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_multi_constructor(_NAME_TAG, lambda loader, suffix, node: locate(suffix))
_Loader.add_implicit_resolver(  # yaml alone takes 1e-4, without a point, for text
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _load_yaml(path: str) -> DictConfig | ListConfig:
    """Read a config from a yaml file; ConfigError where it is no yaml mapping or list."""
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
        if not isinstance(content, (dict, list)):
            raise ConfigError(f"config file {path} holds no mapping.")
        return OmegaConf.create(content, flags={"allow_objects": True})
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"config file {path} is not valid yaml: {reason}") from error


def _expressible(value: Any, path: str, lost: list[str]) -> Any:
    """Replace what yaml does not have by what `_Dumper` writes; note in `lost` what cannot be."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, dict):
        return {
            _expressible(key, path, lost): _expressible(item, f"{path}.{key}", lost)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_expressible(item, f"{path}.{index}", lost) for index, item in enumerate(value)]
    name = _importable_name(value) if callable(value) else None
    if name is not None:
        return name if path.endswith("._target_") else _Name(name)
    lost.append(f"{path.lstrip('.')} ({type(value).__name__})")
    return repr(value)
