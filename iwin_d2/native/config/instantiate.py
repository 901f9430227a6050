"""Carry out the calls that a config describes."""

import inspect
import logging
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, ListConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from ...config_overrides import did_you_mean, locate, parameter_names
from ...errors import ConfigError, UserError


def instantiate(cfg: Any) -> Any:
    """Call the `_target_` of a config with its other keys as arguments, innermost first.

    Lists become plain lists of instantiated items; everything else, mappings without `_target_`
    among it, is returned as it is. An interpolation that points at a call is carried out in each
    place. A ConfigError names the place where a target or value is missing or an argument is wrong.
    """
    path = cfg._get_full_key(None) if isinstance(cfg, (DictConfig, ListConfig)) else ""
    return _instantiate(cfg, path)


def _instantiate(cfg: Any, path: str) -> Any:
    if isinstance(cfg, (DictConfig, ListConfig)) and cfg._is_none():
        return None
    if isinstance(cfg, (ListConfig, list)):
        return [_instantiate_item(cfg, index, path) for index in range(len(cfg))]
    if not isinstance(cfg, (DictConfig, dict)) or "_target_" not in cfg:
        return cfg
    arguments = {key: _instantiate_item(cfg, key, path) for key in cfg}
    return _call(arguments.pop("_target_"), arguments, f"config, at {path}" if path else "config")


def _instantiate_item(cfg: Any, key: Any, path: str) -> Any:
    path = f"{path}.{key}" if path else str(key)
    try:
        value = cfg[key]
    except MissingMandatoryValue as error:
        raise ConfigError(f"config, at {path}: this has no value yet (???): set it.") from error
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"config, at {path}: this cannot be resolved: {reason}: correct it."
        ) from error
    return _instantiate(value, path)


def _call(target: Any, arguments: dict[str, Any], where: str) -> Any:
    """Call the target, after checking that it takes these arguments."""
    if isinstance(target, str):
        name = target
        try:
            target = locate(target)
        except ConfigError as error:
            raise ConfigError(f"{where}: the target {error}") from error
    else:
        has_name = hasattr(target, "__qualname__")
        name = f"{target.__module__}.{target.__qualname__}" if has_name else repr(target)
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
        required = [p.name for p in parameters if p.name in names and p.default is p.empty]
        missing = ", ".join(repr(key) for key in required if key not in arguments)
        if unknown:
            hint = did_you_mean(unknown[0], [n for n in names if n not in arguments])
            hint = hint or f" It takes: {', '.join(names) or 'none'}."
            complaint = f"{name} takes no argument {unknown[0]!r}.{hint}"
        elif missing:
            complaint = f"{name} needs the argument {missing}: set it."
        else:
            complaint = f"{name} cannot be called so: {error}."
        raise ConfigError(f"{where}: {complaint}") from error
