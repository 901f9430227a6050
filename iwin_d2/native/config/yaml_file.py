"""Configs as yaml: written so that they load again, functions and classes by their names."""

import logging
import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ...config_overrides import locate
from ...errors import ConfigError
from ...files import atomic_write

_NAME_TAG = "tag:yaml.org,2002:python/name:"


def target_name(target: Any) -> str | None:
    """Return the dotted name that imports this very object; None if there is none."""
    module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    if not module or not name or "<" in name:
        return None
    try:
        found = locate(f"{module}.{name}")
    except (ConfigError, ImportError):
        return None
    return f"{module}.{name}" if found is target else None


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


def load_yaml(path: str | Path) -> DictConfig | ListConfig:
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


def save_yaml(cfg: DictConfig | ListConfig, path: str | Path) -> None:
    """Write a config to a yaml file; warn about objects that no yaml can express."""
    lost: list[str] = []
    content = _expressible(OmegaConf.to_container(cfg, resolve=False), "", lost)
    if lost:
        logging.getLogger(__name__).warning(
            "The config saved to %s does not load again: yaml cannot express %s.",
            path,
            ", ".join(lost),
        )
    with atomic_write(path, "w") as file:
        yaml.dump(content, file, Dumper=_Dumper, allow_unicode=True, width=9999, sort_keys=False)


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
    name = target_name(value) if callable(value) else None
    if name is not None:
        return name if path.endswith("._target_") else _Name(name)
    lost.append(f"{path.lstrip('.')} ({type(value).__name__})")
    return repr(value)
