"""Lists of videos: a path and a label a line, read without an object for each line."""

import csv
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np

from ...errors import DataError
from ..problems import Problem

__all__ = ["ListFile", "read_list_file"]

_BLOCK = 1 << 22  # bytes looked at at a time
_MOST_DIGITS = 9  # of a label
_SEPARATORS = {ord(" "): "spaces", ord("\t"): "tabs", ord(","): "commas", ord(";"): "semicolons"}
_DELIMITERS = ",;\t"  # of csv
# What the columns of a csv file with a heading may be called.
_PATHS = ("path", "file_name", "filename", "file", "video", "video_path", "name")
_LABELS = ("label", "class", "category", "target", "label_id", "class_id")


@dataclass
class ListFile:
    """The lines of a list, as arrays.

    Attributes:
        source: the file.
        text: uint8, what holds the paths.
        starts: int64 [n], where in `text` the path of each line begins.
        ends: int64 [n], where it ends.
        labels: int64 [n]; -1 for a line without a usable one.
        lines: int64 [n], the lines' numbers in the file, from 1.
        separators: uint8 [n], the character between path and label; 0 where there is none.
        unknown: what stands in place of a label where it is neither number nor name, by place in
            the list.
    """

    source: str
    text: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    labels: np.ndarray
    lines: np.ndarray
    separators: np.ndarray
    unknown: dict[int, str]

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        """The path of a line as it stands there."""
        return os.fsdecode(self.text[self.starts[index] : self.ends[index]].tobytes())

    @property
    def usable(self) -> np.ndarray:
        """Bool [n]: which lines have a path and a label."""
        return (self.labels >= 0) & (self.ends > self.starts)

    def problems(self, num_classes: int | None) -> Iterator[Problem]:
        """Yield what is wrong with the lines, and with the list as a whole.

        Args:
            num_classes: labels are less than it; None: any.
        """
        if not len(self):
            yield Problem("empty", f"{self.source} is empty: write a path and a label a line.")
            return
        good = self.usable
        for index in np.flatnonzero(~good):
            yield Problem("line", self._describe_bad(int(index)))
        yield from self._mixed(good)
        if num_classes is not None:
            for index in np.flatnonzero(good & (self.labels >= num_classes)):
                yield Problem(
                    "label-values",
                    f"{self.source}: line {self.lines[index]}: label {self.labels[index]} of "
                    f"{_short(self.path(index))} is out of range, as there are {num_classes} "
                    f"classes, 0 to {num_classes - 1}: correct it, or the number of classes.",
                )

    def _describe_bad(self, index: int) -> str:
        where = f"{self.source}: line {self.lines[index]}: "
        content = _short(self.path(index))
        if index in self.unknown:
            return (
                f"{where}{_short(self.unknown[index])} is no label of {content}: write a number "
                "from 0 on, or the name of a class."
            )
        if self.ends[index] <= self.starts[index]:
            return f"{where}there is no path before the label: write both."
        return f"{where}{content} has no label behind it, a number from 0 on: add one."

    def _mixed(self, good: np.ndarray) -> Iterator[Problem]:
        """A problem for each separator that only a lesser part of the lines has."""
        kinds, counts = np.unique(self.separators[good], return_counts=True)
        if len(kinds) < 2:
            return
        usual = kinds[counts.argmax()]
        for kind, count in zip(kinds, counts):
            if kind != usual:
                first = int(np.flatnonzero(good & (self.separators == kind))[0])
                yield Problem(
                    "separator",
                    f"{self.source} mixes separators: {count:,} of its lines, line "
                    f"{self.lines[first]} the first, have {_SEPARATORS[int(kind)]} between path "
                    f"and label, the others {_SEPARATORS[int(usual)]}: use one throughout.",
                )


def read_list_file(
    path: str | PathLike, class_names: Callable[[], Sequence[str]] = tuple
) -> ListFile:
    """Read a list: `path label` lines, or csv.

    Lines hold a path and a label, a number from 0 on, with spaces, a tab, a comma or a semicolon
    between them; empty lines do not count. Paths may have spaces themselves. A csv file may have a
    heading (path or file_name or video; label or class), quotes, further columns, and names of
    classes for labels.

    Args:
        path: the file.
        class_names: gives the names of the classes, where the file has some for labels.

    Raises:
        DataError: the file cannot be read, or is not text.
    """
    text = _read(path)
    start = 3 if text[:3].tobytes() == b"\xef\xbb\xbf" else 0  # a byte order mark
    first = _first_line(text, start)
    delimiter = next((d for d in _DELIMITERS if d in first), None)
    if delimiter is not None and (_columns(first, delimiter) or _any(text, ord('"'))):
        return _read_csv(path, delimiter, class_names)
    found = _parse(str(path), text, start)
    # Names for labels, not a list without labels.
    if delimiter is not None and len(found) and (found.labels < 0).all() and class_names():
        return _read_csv(path, delimiter, class_names)
    return found


# ---- lines that end in a number ------------------------------------------------------------------


def _parse(source: str, text: np.ndarray, start: int) -> ListFile:
    starts, ends = _lines(text, start)
    numbers = np.arange(1, len(starts) + 1)
    ends = _strip(text, starts, ends)
    some = ends > starts
    starts, ends, numbers = starts[some], ends[some], numbers[some]
    while len(starts) and (blank := _is_in(text[starts], b" \t")).any():
        starts = starts + blank
    labels, last = _parse_labels(text, starts, ends)
    # `last` is the last character before the label; a comma with spaces is a comma.
    separators = np.where(last >= starts, text[last.clip(0)], 0).astype(np.uint8)
    stripped = _strip(text, starts, last + 1) - 1
    comma = (stripped >= starts) & _is_in(text[stripped.clip(0)], b",;")
    separators = np.where(comma, text[stripped.clip(0)], separators)
    path_ends = _strip(text, starts, stripped + 1 - comma)
    bad = (labels < 0) | ~_is_in(separators, bytes(_SEPARATORS))
    labels[bad], separators[bad] = -1, 0
    return ListFile(
        source, text, starts, np.where(bad, ends, path_ends), labels, numbers, separators, {}
    )


def _lines(text: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Where lines begin and end; a block at a time, as marks of all bytes would take as much."""
    breaks = [
        begin + np.flatnonzero(text[begin : begin + _BLOCK] == ord("\n"))
        for begin in range(start, len(text), _BLOCK)
    ]
    breaks = np.concatenate([*breaks, np.zeros(0, np.int64)])
    return np.append(start, breaks + 1), np.append(breaks, len(text))


def _strip(text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Ends without the blanks before them."""
    while True:
        blank = (ends > starts) & _is_in(text[(ends - 1).clip(0)], b" \t\r")
        if not blank.any():
            return ends
        ends = ends - blank


def _parse_labels(
    text: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The numbers at the ends of lines, -1 where there is none, and where the rest ends."""
    labels = np.full(len(ends), -1)
    place, scale = ends - 1, 1
    more = np.ones(len(ends), bool)
    for _ in range(_MOST_DIGITS):
        digits = text[place.clip(0)].astype(np.int64) - ord("0")
        more &= (place >= starts) & (digits >= 0) & (digits <= 9)
        if not more.any():
            break
        labels = np.where(more, labels.clip(0) + scale * digits, labels)
        place = place - more
        scale *= 10
    return labels, place


def _is_in(characters: np.ndarray, some: bytes) -> np.ndarray:
    table = np.zeros(256, bool)
    table[list(some)] = True
    return table[characters]


# ---- csv -----------------------------------------------------------------------------------------


def _read_csv(path, delimiter: str, class_names: Callable[[], Sequence[str]]) -> ListFile:
    names: dict[str, int] | None = None
    text, ends, labels, lines = bytearray(), array("q"), array("q"), array("q")
    unknown: dict[int, str] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
            columns = None
            for row in reader:
                if columns is None:
                    columns = _columns_of(row)
                    if columns is not None:
                        continue
                    columns = 0, -1
                if not any(row):
                    continue
                cells = [row[c].strip() if -len(row) <= c < len(row) else "" for c in columns]
                name, label = cells if len(row) > 1 else (row[0], "")
                if label and not _is_label(label) and names is None:
                    names = {name: number for number, name in enumerate(class_names())}
                number = int(label) if _is_label(label) else (names or {}).get(label, -1)
                if number < 0 and label:
                    unknown[len(labels)] = label
                text += os.fsencode(name)
                ends.append(len(text)), labels.append(number), lines.append(reader.line_num)
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as csv ({error}): correct the file.") from error
    stops = np.array(ends, np.int64)
    return ListFile(
        str(path),
        np.frombuffer(text, np.uint8),
        np.append(0, stops)[:-1],
        stops,
        np.array(labels, np.int64),
        np.array(lines, np.int64),
        np.full(len(stops), ord(delimiter), np.uint8),
        unknown,
    )


def _columns_of(row: list[str]) -> tuple[int, int] | None:
    """The columns of path and label, by the names in a heading; None if it is none."""
    row = [cell.strip().lower() for cell in row]
    path = next((row.index(name) for name in _PATHS if name in row), None)
    label = next((row.index(name) for name in _LABELS if name in row), None)
    return None if path is None or label is None else (path, label)


def _columns(line: str, delimiter: str) -> tuple[int, int] | None:
    return _columns_of(next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), []))


def _is_label(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


# ---- the file ------------------------------------------------------------------------------------


def _read(path: str | PathLike) -> np.ndarray:
    try:
        text = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise DataError(
            f"the list {path} does not exist: check the path (relative paths start at "
            f"{os.getcwd()})."
        ) from None
    except OSError as error:
        raise DataError(f"the list {path} cannot be read: {error.strerror or error}.") from None
    if not text[: 1 << 16].all():
        raise DataError(f"the list {path} is not text, or not UTF-8: save it as UTF-8.")
    return text if len(text) else np.frombuffer(bytearray(b"\n"), np.uint8)


def _first_line(text: np.ndarray, start: int) -> str:
    for line in text[start : start + (1 << 16)].tobytes().decode(errors="replace").splitlines():
        if line.strip():
            return line.strip()
    return ""


def _any(text: np.ndarray, character: int) -> bool:
    blocks = range(0, len(text), _BLOCK)
    return any((text[begin : begin + _BLOCK] == character).any() for begin in blocks)


def _short(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."
