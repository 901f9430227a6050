"""Command-line overrides of a lazy config, `a.b.c=value`, in which a misspelt key is an error.

Works on any omegaconf DictConfig, whichever framework loaded it. The helpers that look up targets
and near names serve `instantiate` too.
"""

import ast
import difflib
import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, flag_override
from omegaconf.errors import GrammarParseError

from .errors import ConfigError

__all__ = ["apply_overrides", "did_you_mean", "locate", "parameter_names", "parse_value"]


def apply_overrides(cfg: DictConfig, overrides: Iterable[str]) -> DictConfig:
    """Set values of a config, in place, from strings as given on a command line.

    - `a.b.c=value` sets an existing key. List items are addressed by number: `a.0.c=value`.
    - It may also name an argument that the config does not mention, if `a.b` is a LazyCall and its
      target has such an argument.
    - `+a.b.c=value` adds a key on purpose.
    - A mapping given for an existing mapping is merged into it, under the same rules.

    Values are read by `parse_value`.

    Args:
        cfg: the config.
        overrides: the strings.

    Returns:
        `cfg` itself.

    Raises:
        ConfigError: an override that is not of these forms, or whose key does not exist; the
            message names the nearest keys that do.
    """
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        adding = key.startswith("+")
        path = _split(key.lstrip("+"))
        if not equals or not all(path):
            raise ConfigError(
                f"override {override!r} is malformed: write key=value, such as optimizer.lr=1e-4, "
                "or +key=value to add a new key."
            )
        with flag_override(cfg, ["struct", "readonly"], [False, False]):
            _set(cfg, path, parse_value(text), adding, override)
    return cfg


def parse_value(text: str) -> Any:
    """Read an override's value.

    Understood are Python literals (`1e-4`, `'text'`, `[1, 2]`, `None`, `{'a': 1}`), `null`, `true`,
    `false`, `inf`, `nan`, and lists and mappings of bare words (`[res2, res3]`, `{name: value}`).
    All else is a string as it stands, interpolations such as `${..num_classes}` among them.

    Raises:
        ConfigError: a list or mapping that is not closed or otherwise broken.
    """
    text = text.strip()
    words = {"null": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    if re.fullmatch(r"[+-]?(inf|nan)", text, re.IGNORECASE):
        return float(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Python's of literals such as 5in, which are words here
            value = ast.literal_eval(text)
        if value is None or isinstance(value, (bool, int, float, str, list, tuple, dict)):
            return value
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    if text.startswith(("[", "{")):
        try:
            return OmegaConf.to_container(OmegaConf.create(text))
        except Exception as error:
            raise ConfigError(
                f"the value {text!r} begins like a list or mapping but is not one: "
                "check its brackets and quotes."
            ) from error
    return text


def _split(key: str) -> list[str]:
    """Split `a.b[0].c` into its names."""
    return re.sub(r"\[([^\[\]]*)\]", r".\1", key).split(".")


def _find(node: Any, name: str) -> Any:
    """Return the key of `node` that `name` spells, or None if it has no such key."""
    if isinstance(node, ListConfig):
        return next((index for index in range(len(node)) if str(index) == name), None)
    if isinstance(node, DictConfig) and not node._is_none():
        for key in node:
            if str(key) == name:
                return key
    return None


def _set(cfg: DictConfig, path: list[str], value: Any, adding: bool, override: str) -> None:
    """Follow `path` down from `cfg` and set its last name."""
    node = cfg
    for depth, name in enumerate(path[:-1]):
        key = _find(node, name)
        here = ".".join(path[: depth + 1])
        if key is None:
            if not adding or not isinstance(node, DictConfig):
                raise _unknown_key(cfg, path, depth, override)
            key = name
            node[key] = {}
        elif OmegaConf.is_interpolation(node, key):
            reference = OmegaConf.to_container(node, resolve=False)[key]
            raise ConfigError(
                f"override {override!r}: {here} is only a reference, {reference}: "
                "override the key it refers to."
            )
        child = "???" if OmegaConf.is_missing(node, key) else node[key]
        if not isinstance(child, (DictConfig, ListConfig)):
            raise ConfigError(
                f"override {override!r}: {here} is {child!r}, which has no keys: set {here} itself."
            )
        node = child
    _set_here(cfg, node, path, value, adding, override)


def _set_here(
    cfg: DictConfig,
    node: DictConfig | ListConfig,
    path: list[str],
    value: Any,
    adding: bool,
    override: str,
) -> None:
    """Set the last name of `path`, whose parent is `node`."""
    key = _find(node, path[-1])
    if key is None:
        known = isinstance(node, DictConfig) and (adding or _accepts(node, path[-1]))
        if not known:
            raise _unknown_key(cfg, path, len(path) - 1, override)
        key = path[-1]
    elif isinstance(value, dict) and isinstance(node._get_node(key), DictConfig):
        for name, item in value.items():
            _set(cfg, [*path, str(name)], item, adding, override)
        return
    try:
        node[key] = value
    except GrammarParseError as error:
        raise ConfigError(
            f"override {override!r}: the value is not a reference such as ${{model.num_classes}}: "
            "check its braces."
        ) from error
    except Exception as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ConfigError(
            f"override {override!r}: the value cannot stand in a config ({reason}): give numbers, "
            "texts, lists or mappings."
        ) from error


def _accepts(node: DictConfig, name: str) -> bool:
    """Tell whether `node` is a LazyCall whose target has an argument of that name."""
    if "_target_" not in node:
        return False
    parameters = _parameters(node._get_node("_target_")._value())
    if parameters is None:
        return False
    parameter = parameters.get(name)
    if parameter is not None and parameter.kind not in (
        parameter.POSITIONAL_ONLY,
        parameter.VAR_POSITIONAL,
    ):
        return True
    # Of one that takes any name, those are allowed that are not likely to be misspelt.
    takes_any = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
    return takes_any and not difflib.get_close_matches(name, _names(node), cutoff=0.7)


def _unknown_key(cfg: DictConfig, path: list[str], depth: int, override: str) -> ConfigError:
    """Say that `path[depth]` does not exist, and what comes near."""
    key, parent = ".".join(path), path[:depth]
    node = cfg
    for name in parent:
        node = node[_find(node, name)]
    near = [
        ".".join([*parent, sibling, *path[depth + 1 :]])
        for sibling in difflib.get_close_matches(path[depth], _names(node), n=2, cutoff=0.7)
    ]
    if not near:
        every = list(_dotted_keys(cfg))
        near = [other for other in every if other.rpartition(".")[2] == path[-1]][:3]
        near = near or difflib.get_close_matches(key, every, n=2, cutoff=0.8)
    if isinstance(node, ListConfig):
        hint = f" {'.'.join(parent)} is a list of {len(node)}: its items are numbered from 0."
    elif near:
        hint = f" Did you mean {' or '.join(near)}?"
    else:
        hint = f" {'.'.join(parent) or 'The config'} has: {', '.join(sorted(_names(node)))}."
    return ConfigError(
        f"unknown config key {key} in override {override!r}.{hint} "
        "To add a new key on purpose, write +key=value."
    )


def _names(node: Any) -> list[str]:
    """Return what may follow `node.`: its keys, and its target's arguments if it is a LazyCall."""
    if not isinstance(node, DictConfig):
        return []
    names = [str(key) for key in node]
    if "_target_" in node:
        names += parameter_names(node._get_node("_target_")._value())
    return list(dict.fromkeys(names))


def _dotted_keys(cfg: DictConfig | ListConfig, prefix: str = "") -> Iterator[str]:
    """Go through all keys of the config at all depths, without following interpolations."""
    keys = cfg if isinstance(cfg, DictConfig) else range(len(cfg))
    for key in keys:
        full = f"{prefix}{key}"
        yield full
        child = cfg._get_node(key)
        special = child._is_none() or child._is_missing() or child._is_interpolation()
        if isinstance(child, (DictConfig, ListConfig)) and not special:
            yield from _dotted_keys(child, full + ".")


def _parameters(target: Any) -> dict[str, inspect.Parameter] | None:
    """Return the parameters of a callable or of what a name stands for; None if unknown."""
    try:
        if isinstance(target, str):
            target = locate(target)
        return dict(inspect.signature(target).parameters)
    except (ConfigError, TypeError, ValueError):
        return None


def parameter_names(target: Callable | str) -> list[str]:
    """Return the names of a target's arguments; [] where Python cannot tell."""
    parameters = (_parameters(target) or {}).values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return " Did you mean X?" for the choices nearest to `name`, "" if none comes near."""
    near = difflib.get_close_matches(name, [str(choice) for choice in choices], n=2)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def locate(name: str) -> Any:
    """Import what a dotted name such as `torch.nn.Conv2d` stands for.

    Raises:
        ConfigError: there is no such module or name.
    """
    parts = name.split(".")
    if not all(parts):
        raise ConfigError(f"{name!r} is not a dotted name such as torch.nn.Conv2d.")
    for length in range(len(parts), 0, -1):
        module_name = ".".join(parts[:length])
        try:
            found = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # Missing may be the module itself or a package above it; anything else is its own bug.
            if error.name is None or not (module_name + ".").startswith(error.name + "."):
                raise
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                hint = did_you_mean(part, dir(found))
                raise ConfigError(f"{name!r} cannot be found: no {part!r} in it.{hint}")
            found = getattr(found, part)
        return found
    raise ConfigError(f"{name!r} cannot be found: there is no module {parts[0]!r}.")
