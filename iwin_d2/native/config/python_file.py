"""Execute config files written in Python, with relative imports between them."""

import builtins
import sys
import traceback
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ...config_overrides import did_you_mean
from ...errors import ConfigError


def to_config(value: Any) -> Any:
    """Return a dict as a DictConfig that may hold any objects; other values as they are."""
    if isinstance(value, dict):
        return DictConfig(value, flags={"allow_objects": True})
    return value


def execute(path: str | Path) -> dict[str, Any]:
    """Run a config file and return its global names; a ConfigError names file and line.

    Every call, and every relative import inside the file, runs the files anew, so what one config
    edits never shows in another.
    """
    path = Path(path)
    module = _new_module(path)
    try:
        code = compile(path.read_bytes(), str(path), "exec")
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be read: {error.strerror}.") from error
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes, in older Pythons
        place = f", line {error.lineno}" if getattr(error, "lineno", None) else ""
        reason = getattr(error, "msg", error)
        text = f": {error.text.strip()}" if getattr(error, "text", None) else ""
        raise ConfigError(f"config file {path}{place}: {reason}{text}") from error
    try:
        exec(code, module.__dict__)
    except (OmegaConfBaseException, NameError) as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = frames[-1].lineno if frames else "?"
        reason = str(error).splitlines()[0]
        raise ConfigError(f"config file {path}, line {line}: {reason}") from error
    return module.__dict__


def _new_module(path: Path) -> types.ModuleType:
    """Make the empty module of a config file, in which relative imports mean config files."""

    def import_(name, globals=None, locals=None, fromlist=(), level=0) -> types.ModuleType:
        if level == 0:
            return builtins.__import__(name, globals, locals, fromlist, level)
        where = f"config file {path}, line {sys._getframe(1).f_lineno}"
        return _relative_import(path, where, name, fromlist or (), level)

    module = types.ModuleType(f"lazy_config_{path.stem}")
    module.__file__ = str(path)
    # An import statement takes __import__ from its own globals' builtins, so ordinary modules
    # keep the ordinary one.
    module.__builtins__ = {**vars(builtins), "__import__": import_}
    return module


def _relative_import(
    importer: Path, where: str, name: str, fromlist: Sequence[str], level: int
) -> types.ModuleType:
    """Execute the config file that a `from ..name import x` in `importer` means."""
    shown = "." * level + name
    if not name:
        raise ConfigError(f"{where}: name the file to import from: from {shown}file import x")
    # Only now absolute: a path in messages stays as it was given.
    folder = importer.absolute().parent
    for _ in range(level - 1):
        folder = folder.parent
    path = folder.joinpath(*name.split(".")).with_suffix(".py")
    if not path.is_file():
        hint = did_you_mean(path.stem, [file.stem for file in path.parent.glob("*.py")])
        raise ConfigError(f"{where} imports {shown}, but there is no file {path}.{hint}")
    values = execute(path)
    public = [n for n in values if not n.startswith("_")]
    module = types.ModuleType(shown)
    module.__file__ = str(path)
    for wanted in public if "*" in fromlist else fromlist:
        if wanted not in values:
            hint = did_you_mean(wanted, public)
            raise ConfigError(f"{where} imports {wanted!r} from {path}, which lacks it.{hint}")
        setattr(module, wanted, to_config(values[wanted]))
    return module
