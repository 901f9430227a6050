"""Data sets by name: how to load their records, and what is known about them."""

from collections import UserDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ...config_overrides import did_you_mean
from ...errors import DataError

__all__ = ["DatasetCatalog", "Metadata", "MetadataCatalog"]


class _UnknownDataset(DataError, KeyError):
    """A name that no data set is registered under."""

    __str__ = Exception.__str__  # KeyError's would show the sentence in quotes


class _DatasetCatalog(UserDict):
    """Functions that load a data set's records, by the data set's name."""

    def register(self, name: str, func: Callable[[], list[dict]]) -> None:
        """Make `func()` the records of the data set `name`, a new name.

        The function gives the same records in the same order each time. It is called when the data
        set is used, not before.
        """
        if not callable(func):
            raise AssertionError(f"data set {name!r} must be registered with a function.")
        if name in self:
            raise AssertionError(f"data set {name!r} is already registered.")
        self[name] = func

    def get(self, name: str) -> list[dict]:
        """Load the records of a data set.

        Raises:
            DataError (also a KeyError): the name is not registered; says which ones come near.
        """
        if name not in self:
            hint = did_you_mean(name, self) or f" Registered are: {', '.join(sorted(self))}."
            raise _UnknownDataset(f"data set {name!r} is not registered.{hint}")
        return self[name]()

    def list(self) -> list[str]:
        """Return all registered names."""
        return [*self]

    def remove(self, name: str) -> None:
        """Forget a data set."""
        self.pop(name)


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

    def as_dict(self) -> dict[str, Any]:
        """Return all attributes in a new dict."""
        return dict(vars(self))

    def set(self, **kwargs: Any) -> "Metadata":
        """Set several attributes; return self."""
        for key, value in kwargs.items():
            setattr(self, key, value)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """Return an attribute, or `default` if it has not been set."""
        return vars(self).get(key, default)


class _MetadataCatalog(UserDict):
    """Metadata by the data set's name."""

    def get(self, name: str) -> Metadata:
        """Return the metadata of that name, at first empty ones."""
        if name not in self:
            self[name] = Metadata(name=name)
        return self[name]

    def list(self) -> list[str]:
        """Return all names."""
        return [*self]

    def remove(self, name: str) -> None:
        """Forget what is known about a data set."""
        self.pop(name)


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()
