"""What is to be done where a checkpoint is not simply the model's own."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..errors import ConfigError

__all__ = ["LoadOptions", "make_options"]


@dataclass(frozen=True)
class LoadOptions:
    """What `load_pretrained` may do beside loading every tensor as it is.

    Attributes:
        part: "all", or "backbone" to take no more than that from the file.
        classes: where a head's number of classes changes: "same" refuses, "new" leaves its class
            tensors as the model has them, and numbers give the file's class for each class of the
            model, -1 for a new one.
        leave_out: beginnings of the model's names, or patterns with *: what is so named is neither
            looked for in the file nor loaded.
        num_heads: attention heads of each stage that the file was trained with, for files that do
            not say so, or that are to be loaded all the same.
        channels: where the images have another number of channels: "same" refuses, "adapt" spreads
            the weights of the patches over them.
    """

    part: str = "all"
    classes: str | tuple[int, ...] = "same"
    leave_out: tuple[str, ...] = ()
    num_heads: tuple[int, ...] | None = None
    channels: str = "same"


def make_options(where: str = "", **values: Any) -> LoadOptions:
    """Check options and read what they name.

    Args:
        where: what stands before an option's name in messages, such as "train.init_options.".
        values: by the names of `LoadOptions`; `classes` also as the name of a text file with a
            number in each line. None for the default.

    Raises:
        ConfigError: there is no such option, or its value makes no sense.
    """
    known = [field.name for field in fields(LoadOptions)]
    given = {key: value for key, value in values.items() if value is not None}
    for key in given:
        if key not in known:
            raise ConfigError(f"{where}{key} is no option: there are {', '.join(known)}.")
    for key, choices in (("part", ("all", "backbone")), ("channels", ("same", "adapt"))):
        if given.get(key, choices[0]) not in choices:
            raise _wrong(where, key, given[key], " or ".join(choices))
    if "num_heads" in given and not _are_numbers(given["num_heads"], low=1):
        raise _wrong(where, "num_heads", given["num_heads"], "the heads of each stage")
    if isinstance(given.get("leave_out"), str):
        given["leave_out"] = [given["leave_out"]]
    if "leave_out" in given and not all(isinstance(name, str) for name in given["leave_out"]):
        raise _wrong(where, "leave_out", given["leave_out"], "a list of names")
    if "classes" in given:
        given["classes"] = _classes(given["classes"], where)
    frozen = {k: v if isinstance(v, str) else tuple(v) for k, v in given.items()}
    return LoadOptions(**frozen)


def _classes(value: Any, where: str) -> Any:
    """Check `classes`, reading the file if it names one."""
    if value in ("same", "new"):
        return value
    if isinstance(value, str):
        try:
            with open(value, encoding="utf-8") as file:
                lines = file.read().split()
        except (OSError, UnicodeDecodeError) as error:
            raise _wrong(where, "classes", value, "same, new or a file of numbers") from error
        if not all(re.fullmatch(r"-?\d+", line) for line in lines):
            raise _wrong(where, "classes", value, "a file with a whole number in each line")
        value = [int(line) for line in lines]
    if not value or not _are_numbers(value, low=-1):
        raise _wrong(where, "classes", value, "same, new or numbers of the file's classes")
    return value


def _are_numbers(value: Any, low: int) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    return all(type(number) is int and number >= low for number in value)


def _wrong(where: str, key: str, value: Any, wanted: str) -> ConfigError:
    return ConfigError(f"{where}{key}={value} makes no sense: set it to {wanted}.")
