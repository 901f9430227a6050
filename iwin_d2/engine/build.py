"""Building the parts of a config, and saying what keeps one from being built."""

import inspect
import traceback
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue

from ..config_overrides import locate
from ..d2.config import instantiate
from ..errors import ConfigError, UserError
from .memory import is_out_of_memory
from .processes import is_lost_connection, is_lost_worker

__all__ = ["TRACEBACK_HINT", "build", "is_of_the_machine", "reason_of"]

TRACEBACK_HINT = "(IWIN_D2_TRACEBACK=1 shows where)"
_SHORT = 60  # characters of an argument that is shown


def build(cfg: DictConfig, key: str) -> Any:
    """Instantiate the part of a config under a dotted key, such as "dataloader.train".

    Raises:
        UserError: as whatever is built raises.
        ConfigError: for any other error of it; names the call of the config that failed.
        MissingMandatoryValue, InterpolationToMissingValueError: a value was left at ???.
    """
    try:
        return instantiate(OmegaConf.select(cfg, key))
    except (UserError, MissingMandatoryValue, InterpolationToMissingValueError, MemoryError):
        raise
    except Exception as error:  # of constructors, which can be anybody's
        if is_of_the_machine(error):
            raise
        call = _failed_call(cfg, key, error.__traceback__)
        place = call[0] if call else key
        # A ValueError says itself which value it means.
        where = f", in {_describe(*call[1:], bare=isinstance(error, ValueError))}" if call else ""
        raise ConfigError(
            f"{place} cannot be built ({reason_of(error)}{where}): correct it in the config, or by "
            f"an override {TRACEBACK_HINT}."
        ) from error


def is_of_the_machine(error: BaseException) -> bool:
    """Whether an error is no fault of config or data: out of memory, or another process is gone."""
    return is_out_of_memory(error) or is_lost_connection(error) or is_lost_worker(error)


def reason_of(error: BaseException, limit: int = 300) -> str:
    """An error's kind and message in one line."""
    # The text of a KeyError is its key's repr.
    only_text = len(error.args) == 1 and isinstance(error.args[0], str) and " " in error.args[0]
    text = " ".join((error.args[0] if only_text else str(error)).split()).rstrip(".:")
    text = text if len(text) <= limit else f"{text[:limit]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _failed_call(
    cfg: DictConfig, key: str, trace: TracebackType | None
) -> tuple[str, DictConfig | None, Any] | None:
    """The call of the config that failed: its place, node and target; None if not known.

    Of several calls of the target below `key` it cannot tell which one failed: `key`, no node.
    """
    frames = [frame for frame, _ in traceback.walk_tb(trace)]
    source = inspect.getsourcefile(instantiate)
    inside = [i for i, frame in enumerate(frames) if frame.f_code.co_filename == source]
    # What was called last, and what its decorators called.
    called = frames[inside[-1] + 1 :][:3] if inside else []
    found = [
        (path, node, target)
        for path, node, target in _calls(OmegaConf.select(cfg, key), key)
        if any(_is_call_of(frame, target) for frame in called)
    ]
    if len(found) > 1:
        return key, None, found[0][2]
    return found[0] if found else None


def _describe(node: DictConfig | None, target: Any, bare: bool) -> str:
    """A call's name or, unless `bare`, the call with the arguments that are no calls themselves."""
    name = getattr(target, "__name__", str(target))
    if node is None or bare:
        return name
    arguments = OmegaConf.to_container(node, resolve=False)
    plain = [
        f"{key}={value!r}"
        for key, value in arguments.items()
        if key != "_target_" and "_target_" not in repr(value) and len(repr(value)) <= _SHORT
    ]
    dots = ["..."] if len(plain) < len(arguments) - 1 else []
    return f"{name}({', '.join(plain + dots)})"


def _is_call_of(frame: FrameType, target: Any) -> bool:
    if inspect.isclass(target):
        return frame.f_code.co_name == "__init__" and type(frame.f_locals.get("self")) is target
    return frame.f_code is getattr(inspect.unwrap(target), "__code__", None)


def _calls(node: Any, path: str) -> Iterator[tuple[str, DictConfig, Any]]:
    """Place, node and target of all calls below a node of a config; references not followed."""
    if not isinstance(node, (DictConfig, ListConfig)) or node._is_none() or node._is_missing():
        return
    keys = list(node) if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        child = node._get_node(key)
        if not child._is_interpolation():
            yield from _calls(child, f"{path}.{key}")
    target = node._get_node("_target_") if isinstance(node, DictConfig) else None
    if target is not None:
        try:
            value = target._value()
            yield path, node, locate(value) if isinstance(value, str) else value
        except (ConfigError, ImportError):
            return
