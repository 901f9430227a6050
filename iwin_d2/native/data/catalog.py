"""Data sets by name: how to load their records, and what is known about them."""

from collections import UserDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ...config_overrides import did_you_mean
from ...errors import DataError


class _UnknownDataset(DataError, KeyError):
    """A name that no data set is registered under."""

    __str__ = Exception.__str__  # KeyError's would show the sentence in quotes


class _Catalog(UserDict):
    def list(self) -> list[str]:
        return [*self]

    def remove(self, name: str) -> None:
        self.pop(name)


class _DatasetCatalog(_Catalog):
    """Functions that load a data set's records, by the data set's name."""

    def register(self, name: str, func: Callable[[], list[dict]]) -> None:
        """Make `func()`, called when the data set is used, the records of a new name."""
        if not callable(func):
            raise AssertionError(f"data set {name!r} must be registered with a function.")
        if name in self:
            raise AssertionError(f"data set {name!r} is already registered.")
        self[name] = func

    def get(self, name: str) -> list[dict]:
        """Load the records; a DataError that is also a KeyError names the nearest known names."""
        if name not in self:
            hint = did_you_mean(name, self) or f" Registered are: {', '.join(sorted(self))}."
            raise _UnknownDataset(f"data set {name!r} is not registered.{hint}")
        return self[name]()


class Metadata(SimpleNamespace):
    """What is known about a data set, as attributes: class names, paths, colours, ...

    An attribute, once set, keeps its value: it must mean the same all through a run.
    """

    name: str = "N/A"

    def __getattr__(self, key: str) -> Any:
        hint = did_you_mean(key, vars(self)) or f" It has: {', '.join(sorted(vars(self)))}."
        raise AttributeError(f"the metadata of data set {self.name!r} have no {key!r}.{hint}")

    def __setattr__(self, key: str, value: Any) -> None:
        # vars() and not getattr: an attribute of the class is only a default.
        if key in vars(self) and vars(self)[key] != value:
            raise AssertionError(
                f"{key!r} of data set {self.name!r} is already set, to another value: "
                f"{vars(self)[key]!r}, now {value!r}."
            )
        super().__setattr__(key, value)

    def set(self, **kwargs: Any) -> "Metadata":
        for key, value in kwargs.items():
            setattr(self, key, value)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        return vars(self).get(key, default)


class _MetadataCatalog(_Catalog):
    """Metadata by the data set's name."""

    def get(self, name: str) -> Metadata:
        """Return the metadata of that name, at first empty ones."""
        return self.setdefault(name, Metadata(name=name))


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()
