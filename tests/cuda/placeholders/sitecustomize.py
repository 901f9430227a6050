"""Lets the backbone be imported where the packages that only detectors need are not installed.

`make test-cuda` puts this folder on PYTHONPATH, and Python imports a module of this name when it
starts. Machines with a GPU may have PyTorch and no way to install more. What is missing is stood in
for: its names can be imported, derived from, and called while modules are being imported, as for
decorators; whoever calls them later is told that the package is missing. What is installed is
left alone.
"""

import importlib.abc
import importlib.machinery
import sys
from types import ModuleType

PACKAGES = ("fvcore", "iopath", "omegaconf", "pycocotools")


class _Module(ModuleType):
    """A module, or a package, that has every name."""

    is_placeholder = True

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        value = type(name, (_Placeholder,), {"__module__": self.__name__})
        setattr(self, name, value)
        return value


class _Placeholder:
    """A class of a missing package; its instances have every attribute and can be called."""

    def __new__(cls, *args, **kwargs):
        _check_importing(cls)
        return args[0] if _decorates(args, kwargs) else super().__new__(cls)

    def __init__(self, *args, **kwargs):
        """Take anything."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args, **kwargs):
        _check_importing(type(self))
        return args[0] if _decorates(args, kwargs) else self


def _decorates(args: tuple, kwargs: dict) -> bool:
    """Whether a call may be one of a decorator, which returns what it decorates."""
    return len(args) == 1 and not kwargs and callable(args[0])


def _check_importing(kind: type) -> None:
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return
        frame = frame.f_back
    missing = kind
    while missing.__base__ is not _Placeholder:  # a class of this project that is derived from one
        missing = missing.__base__
    package = missing.__module__.partition(".")[0]
    raise ModuleNotFoundError(
        f"{missing.__module__}.{missing.__name__} is called for, and {package} is not installed "
        "here: tests/cuda/placeholders stands in for it, so that other modules can be imported",
        name=package,
    )


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """The last to be asked: finds what nobody else has."""

    def find_spec(self, name: str, path=None, target=None):
        package = name.partition(".")[0]
        if package not in PACKAGES or not isinstance(
            sys.modules.get(package, _Module("")), _Module
        ):
            return None  # nothing to stand in for, or a part that the installed package lacks
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is in it."""


sys.meta_path.append(_Finder())
