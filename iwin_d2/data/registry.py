"""Data sets registered by lazy configs: the same again is nothing new, another takes the name over.

A catalog refuses a name that it has; but a config may be instantiated many times in a process.
"""

from collections.abc import Callable
from typing import Any

from ..d2.data import DatasetCatalog, MetadataCatalog
from ..errors import DataError

__all__ = ["register", "registered_entry"]

# The data sets registered here: name -> everything their loading depends on.
_REGISTERED: dict[str, Any] = {}


def register(name: str, entry: Any, load: Callable[[], list[dict]], **metadata: Any) -> str:
    """Register a data set and return its name.

    Args:
        name: under which the data set is known to the catalogs.
        entry: what its loading depends on; a name registered again with another one is replaced.
        load: returns its records.
        metadata: what is known of it before it is loaded.

    Raises:
        DataError: the name belongs to a data set that was not registered by this function.
    """
    if name in DatasetCatalog:
        if name not in _REGISTERED:
            raise DataError(
                f"the data set name {name!r} is already in use by another data set: choose another."
            )
        if _REGISTERED[name] == entry:
            return name
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    _REGISTERED[name] = entry
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(**metadata)
    return name


def registered_entry(name: str) -> Any:
    """What a name was registered with; None for data sets that others have registered."""
    return _REGISTERED.get(name)
