"""Carry out the calls that a config describes."""

import inspect
import logging
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from ...config_overrides import did_you_mean, locate, parameter_names
from ...errors import ConfigError, UserError

__all__ = ["display_name", "instantiate"]

_TARGET = "_target_"


def instantiate(cfg: Any) -> Any:
    """Call the `_target_` of a config with its other keys as arguments, innermost first.

    Lists become plain lists of instantiated items, mappings that have calls somewhere inside plain
    dicts. Everything else, mappings without calls among it, is returned as it is. An interpolation
    that points at a call is carried out in each place.

    Args:
        cfg: a config, or any object.

    Returns:
        What the target returns.

    Raises:
        ConfigError: the target does not exist, an argument is missing or unknown, or a value has
            not been filled in; the message names the place in the config.
    """
    return _instantiate(cfg, _path_of(cfg))


def _instantiate(cfg: Any, path: str) -> Any:
    if isinstance(cfg, (ListConfig, list)):
        if isinstance(cfg, ListConfig) and cfg._is_none():
            return None
        return [
            _instantiate(_value(cfg, index, path), _join(path, index)) for index in range(len(cfg))
        ]
    if not isinstance(cfg, (DictConfig, dict)) or not _has_call(cfg, path):
        return cfg
    arguments = {
        key: _instantiate(_value(cfg, key, path), _join(path, key)) for key in cfg if key != _TARGET
    }
    if _TARGET not in cfg:
        return arguments
    target = _instantiate(_value(cfg, _TARGET, path), _join(path, _TARGET))
    return _call(target, arguments, path)


def _has_call(cfg: Any, path: str) -> bool:
    """Tell whether there is a `_target_` in a mapping or list, or anywhere below it."""
    is_config = isinstance(cfg, (DictConfig, ListConfig))
    if is_config and (cfg._is_none() or cfg._is_missing()):
        return False
    if isinstance(cfg, (DictConfig, dict)):
        if _TARGET in cfg:
            return True
        keys = list(cfg)
    elif isinstance(cfg, (ListConfig, list)):
        keys = list(range(len(cfg)))
    else:
        return False
    keys = [key for key in keys if not (is_config and OmegaConf.is_missing(cfg, key))]
    return any(_has_call(_value(cfg, key, path), _join(path, key)) for key in keys)


def _value(cfg: Any, key: Any, path: str) -> Any:
    """Return `cfg[key]`, its interpolations resolved."""
    try:
        return cfg[key]
    except MissingMandatoryValue as error:
        raise ConfigError(
            f"config, at {_join(path, key)}: this has no value yet (???): set it."
        ) from error
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"config, at {_join(path, key)}: this cannot be resolved: {reason}"
        ) from error


def _call(target: Any, arguments: dict[str, Any], path: str) -> Any:
    """Call the target, after checking that it takes these arguments."""
    name = target if isinstance(target, str) else display_name(target)
    where = f"config, at {path}" if path else "config"
    if isinstance(target, str):
        try:
            target = locate(target)
        except ConfigError as error:
            raise ConfigError(f"{where}: the target {error}") from error
    if not callable(target):
        raise ConfigError(f"{where}: the target {name} is not something that can be called.")
    _check_arguments(target, arguments, name, where)
    try:
        return target(**arguments)
    except UserError:
        raise
    except Exception:
        logging.getLogger(__name__).error("Error when instantiating %s (%s)", name, where)
        raise


def _check_arguments(target: Callable, arguments: dict[str, Any], name: str, where: str) -> None:
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # some callables of C++ have none
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        parameters = signature.parameters.values()
        names = parameter_names(target)
        open_ended = any(p.kind == p.VAR_KEYWORD for p in parameters)
        unknown = [] if open_ended else [key for key in arguments if key not in names]
        if unknown:
            hint = did_you_mean(unknown[0], [n for n in names if n not in arguments])
            hint = hint or f" It takes: {', '.join(names) or 'none'}."
            raise ConfigError(f"{where}: {name} takes no argument {unknown[0]!r}.{hint}") from error
        missing = [p.name for p in parameters if p.name in names and p.default is p.empty]
        missing = [key for key in missing if key not in arguments]
        if missing:
            listed = ", ".join(map(repr, missing))
            raise ConfigError(f"{where}: {name} needs the argument {listed}: set it.") from error
        raise ConfigError(f"{where}: {name} cannot be called so: {error}.") from error


def display_name(target: Any) -> str:
    """Name a target in messages."""
    if hasattr(target, "__qualname__"):
        return f"{target.__module__}.{target.__qualname__}"
    return repr(target)


def _path_of(cfg: Any) -> str:
    """Return the dotted path of a node inside its config, "" if it is none or the root."""
    return cfg._get_full_key(None) if isinstance(cfg, (DictConfig, ListConfig)) else ""


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
