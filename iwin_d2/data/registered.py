"""The records of registered data sets, and a sentence where their files or packages are missing."""

import os
from collections.abc import Sequence

from ..d2.data import get_detection_dataset_dicts
from ..errors import DataError

__all__ = ["datasets_root", "load_registered", "variable_hint"]

_VARIABLE = "DETECTRON2_DATASETS"


def load_registered(
    names: str | Sequence[str], filter_empty: bool = True, check_consistency: bool = True
) -> list[dict]:
    """Load the records of one or several registered data sets, as `get_detection_dataset_dicts`.

    Args:
        names: of the data sets; several are joined.
        filter_empty: whether images without an object (crowds do not count) are left out. Kept,
            they teach a detector what is none.
        check_consistency: whether data sets of different classes are refused.

    Raises:
        DataError: a file of the data set does not exist, or a package that reads it is missing;
            and whatever the data set's own loading raises.
    """
    try:
        return get_detection_dataset_dicts(names, filter_empty, check_consistency=check_consistency)
    except FileNotFoundError as error:
        raise DataError(f"{_title(names)} cannot be loaded: {_missing(error)}") from error
    except ModuleNotFoundError as error:
        raise DataError(
            f"{_title(names)} cannot be loaded without the package {error.name!r}: install it "
            f"(pip install {error.name})."
        ) from error


def _title(names: str | Sequence[str]) -> str:
    names = [names] if isinstance(names, str) else names
    return f"Data set {' with '.join(str(name) for name in names)}"


def _missing(error: FileNotFoundError) -> str:
    """What to do about a file that is not there: COCO's and the like lie where a variable says."""
    path, root = str(error.filename), datasets_root()
    if not path.startswith(os.path.join(root, "")):
        return f"{path} does not exist: check the path that it is registered with."
    folder = os.path.relpath(path, root).split(os.sep)[0]
    own = "or train on data of your own by custom_coco.py"
    return f"{path} does not exist ({_state()}): {variable_hint(folder)}, {own}."


def datasets_root() -> str:
    """The folder of the data sets that are registered by name, as Detectron2 has it."""
    return os.path.expanduser(os.environ.get(_VARIABLE, "datasets"))


def variable_hint(folder: str, with_state: bool = False) -> str:
    """What to do where a folder of `datasets_root()` is missing; with the variable's value or not.

    No full stop.
    """
    text = f"set {_VARIABLE} to the folder that has {folder}/ in it (docs/datasets.md)"
    return f"{_state()}: {text}" if with_state else text


def _state() -> str:
    value = os.environ.get(_VARIABLE)
    return f"{_VARIABLE} is not set" if value is None else f"{_VARIABLE}={value}"
