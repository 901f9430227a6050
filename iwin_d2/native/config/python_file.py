"""Execute config files written in Python, with relative imports between them."""

import builtins
import sys
import traceback
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ...config_overrides import did_you_mean
from ...errors import ConfigError

__all__ = ["execute", "to_config"]


def to_config(value: Any) -> Any:
    """Return a dict as a DictConfig that may hold any objects; other values as they are."""
    if isinstance(value, dict):
        return DictConfig(value, flags={"allow_objects": True})
    return value


def execute(path: str | Path) -> dict[str, Any]:
    """Run a config file and return its global names.

    Every call, and every relative import inside the file, runs the files anew, so what one config
    edits never shows in another.

    Raises:
        ConfigError: the file is missing or not Python, imports what is not there, or uses a name or
            config key that is not defined; the message gives file and line.
    """
    path = Path(path)
    module = _new_module(path)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be read: {error.strerror}.") from error
    try:
        code = compile(source, str(path), "exec")
    except SyntaxError as error:
        text = (error.text or "").strip()
        raise ConfigError(
            f"config file {path}, line {error.lineno}: {error.msg}: {text}"
        ) from error
    except ValueError as error:  # null bytes, in older versions of Python
        raise ConfigError(f"config file {path} is not Python: {error}.") from error
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

    def import_(
        name: str,
        globals: Mapping | None = None,
        locals: Mapping | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> types.ModuleType:
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
        siblings = [file.stem for file in path.parent.glob("*.py")]
        hint = did_you_mean(path.stem, siblings)
        raise ConfigError(f"{where} imports {shown}, but there is no file {path}.{hint}")
    values = execute(path)
    module = types.ModuleType(shown)
    module.__file__ = str(path)
    names = [n for n in values if not n.startswith("_")] if "*" in fromlist else fromlist
    for wanted in names:
        if wanted not in values:
            hint = did_you_mean(wanted, [n for n in values if not n.startswith("_")])
            raise ConfigError(f"{where} imports {wanted!r} from {path}, which lacks it.{hint}")
        setattr(module, wanted, to_config(values[wanted]))
    return module
