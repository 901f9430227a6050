"""Class names from a text file, one name a line."""

import os

from ..errors import DataError

__all__ = ["class_names", "num_classes", "read_class_file", "settle_names"]


def class_names(classes: str | os.PathLike) -> list[str]:
    """Read the class names of a text file: UTF-8, one name a line, in the order of their numbers.

    White space around a name, and empty lines at the end of the file, do not count.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or has no name, an empty line among
            others, or a name twice.
    """
    names, problems = read_class_file(classes)
    if problems:
        more = f" ({len(problems) - 1} more in the same file)" if len(problems) > 1 else ""
        raise DataError(f"{problems[0]}{more}.")
    return names


def read_class_file(classes: str | os.PathLike) -> tuple[list[str], list[str]]:
    """Read a class file; return the names that it has, and a sentence on all that is wrong.

    The sentences lack their full stop. Arguments as for `class_names`.

    Raises:
        DataError: the file cannot be read at all.
    """
    lines = _read(classes).rstrip().split("\n")
    if lines == [""]:
        return [], [
            f"the class file {classes} is empty: write the names of the classes, one a line"
        ]
    first: dict[str, int] = {}
    problems = []
    for number, name in enumerate(map(str.strip, lines), start=1):
        where = f"line {number} of the class file {classes}"
        if not name:
            problems.append(
                f"{where} is empty, and lines are counted: remove it, or write a name for that "
                "class"
            )
        elif not name.isprintable():
            problems.append(
                f"{where} has tabs or control characters ({_short(name)}): write one name a line, "
                "without anything else"
            )
        elif name in first:
            problems.append(
                f"the class file {classes} has the name {name!r} twice, in lines {first[name]} and "
                f"{number}: give every class a name of its own"
            )
        first.setdefault(name, number)
    return [line.strip() for line in lines], problems


def num_classes(classes: str | os.PathLike | None, count: int | None = None) -> int:
    """The number of classes, for `num_classes` in lazy configs.

    Args:
        classes: the class file; None where there is none.
        count: the number said otherwise, or None; it must be that of the file.

    Raises:
        DataError: neither is given, or they differ; and as `class_names`.
    """
    return len(settle_names(classes, count))


def settle_names(
    classes: str | os.PathLike | list[str] | tuple[str, ...] | None, count: int | None = None
) -> tuple[str, ...]:
    """The class names of a file, a list, or (None) a count, whose classes are "0", "1", ...

    Raises:
        DataError: as `num_classes`.
    """
    if classes is None:
        if count is None or count < 1:
            raise DataError(
                "a segmentation data set needs its classes: a text file with their names, one a "
                f"line, or at least their number (num_classes is {count})."
            )
        return tuple(map(str, range(count)))
    given = isinstance(classes, (str, os.PathLike))
    names = tuple(class_names(classes) if given else map(str, classes))
    if count is not None and count != len(names):
        where = f"the class file {classes}" if given else "the list of classes"
        raise DataError(
            f"{where} has {len(names)} names, but num_classes={count}: correct one of them, or "
            "leave num_classes out."
        )
    return names


def _read(path: str | os.PathLike) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        raise DataError(
            f"the class file {path} does not exist: check the path (relative paths start at "
            f"{os.getcwd()})."
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"the class file {path} cannot be read: {reason}.") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"the class file {path} is not UTF-8 text (byte {error.start}): save it as UTF-8."
        ) from None
    if "\0" in text:
        raise DataError(f"the class file {path} is not UTF-8 text: save it as UTF-8.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _short(name: str, limit: int = 60) -> str:
    return repr(name if len(name) <= limit else f"{name[:limit]}...")
