"""What the values in label files mean: which class, or none."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ConfigError

__all__ = ["BAD", "IGNORE_VALUE", "LabelFormat"]

IGNORE_VALUE = 255  # what Detectron2, ADE20K, Cityscapes and Pascal VOC take
_MAX_VALUE = 2**16 - 1
BAD = -(2**31)  # in a table: a value that means nothing


@dataclass(frozen=True)
class LabelFormat:
    """What the pixel values of a data set's label files mean.

    Attributes:
        num_classes: how many classes there are; None: not known, so any value may be a class.
        ignore_value: of pixels that belong to no class.
        reduce_zero_label: whether the files count classes from 1, as ADE20K does, and 0 is ignored.
        label_values: value in the files -> class number or `ignore_value`; None: the values are the
            class numbers.
        accept_palette: whether the numbers of a palette's colours are the values, as Pascal VOC
            has it.

    Raises:
        ConfigError: settings that contradict each other.
    """

    num_classes: int | None = None
    ignore_value: int = IGNORE_VALUE
    reduce_zero_label: bool = False
    label_values: Mapping[int, int] | None = None
    accept_palette: bool = False

    def __post_init__(self):
        if self.label_values is not None:
            try:
                pairs = {int(value): int(number) for value, number in self.label_values.items()}
            except (TypeError, ValueError, AttributeError):
                raise ConfigError(
                    f"label_values={self.label_values} must map values in the files to class "
                    "numbers: {0: 255, 7: 0, 8: 1}, say."
                ) from None
            object.__setattr__(self, "label_values", pairs)
        self._check()

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "LabelFormat":
        """The format that a record of a data set tells; where it says nothing, the defaults."""
        return cls(**{key: record[key] for key in _FIELDS if key in record})

    def as_record(self) -> dict[str, Any]:
        """What a record must tell: everything that is not the default."""
        return {key: getattr(self, key) for key in _FIELDS if getattr(self, key) != _DEFAULTS[key]}

    def table(self, ignored: int | None = None, bits: int = 8) -> np.ndarray:
        """int32 [2**bits]: for each value of a file the class number, `ignored` or BAD.

        Args:
            ignored: what ignored pixels become; None: `ignore_value`.
            bits: 8 or 16, of the file.
        """
        pairs = None if self.label_values is None else tuple(self.label_values.items())
        ignored = self.ignore_value if ignored is None else ignored
        settings = (self.num_classes, self.ignore_value, self.reduce_zero_label, pairs)
        return _table(*settings, ignored, bits)

    def file_values(self) -> list[int]:
        """The value that stands for each class in the files; of several, the first.

        Raises:
            ValueError: the number of classes is not known.
        """
        if self.num_classes is None:
            raise ValueError("the number of classes is not known")
        if self.label_values is None:
            first = int(self.reduce_zero_label)
            return list(range(first, first + self.num_classes))
        values: dict[int, int] = {}
        for value, number in self.label_values.items():
            values.setdefault(number, value)
        return [values[number] for number in range(self.num_classes)]

    def describe(self) -> str:
        """The values that mean something, for sentences: "1 to 150 are classes, 0 and ..."."""
        ignored = {self.ignore_value} | ({0} if self.reduce_zero_label else set())
        if self.label_values is not None:
            classes = [v for v, n in self.label_values.items() if n != self.ignore_value]
            ignored |= self.label_values.keys() - set(classes)
            named = f"{_list_values(classes)} are classes"
        elif self.num_classes is None:
            named = "any others are classes"
        else:
            first = int(self.reduce_zero_label)
            named = f"{first} to {first + self.num_classes - 1} are classes"
        verb = "is" if len(ignored) == 1 else "are"
        return f"{named}, {_list_values(sorted(ignored))} {verb} ignored"

    def _check(self) -> None:
        if not 0 <= self.ignore_value <= _MAX_VALUE:
            raise ConfigError(
                f"ignore_value={self.ignore_value} cannot stand in a label file: set it to a "
                f"number from 0 to {_MAX_VALUE} that is no class."
            )
        if self.num_classes is not None:
            self._check_ignore_value()
        if self.label_values is not None:
            self._check_label_values()

    def _check_ignore_value(self) -> None:
        """It must be the number of no class, and the value of none in the files."""
        shifted = self.reduce_zero_label and self.label_values is None
        most = self.num_classes - 1 + int(shifted)
        if self.ignore_value > most:
            return
        hint = "set it to a value that is none, such as 255"
        if self.ignore_value == 0:
            hint = "where 0 means no class and classes count from 1, set reduce_zero_label=True"
            if shifted:
                hint = "with reduce_zero_label=True 0 is ignored in any case, so leave it at 255"
        raise ConfigError(
            f"ignore_value={self.ignore_value} is the number of a class (0 to {most}), whose "
            f"pixels it would hide: {hint}."
        )

    def _check_label_values(self) -> None:
        if self.reduce_zero_label:
            raise ConfigError(
                "reduce_zero_label=True and label_values both say what the values of label files "
                "mean: leave one of them out."
            )
        outside = [v for v in self.label_values if not 0 <= v <= _MAX_VALUE]
        if outside:
            raise ConfigError(
                f"label_values has the value {outside[0]}, which no label file can hold: values "
                f"are 0 to {_MAX_VALUE}."
            )
        if self.label_values.get(self.ignore_value, self.ignore_value) != self.ignore_value:
            raise ConfigError(
                f"label_values makes the value {self.ignore_value} a class, and ignore_value="
                f"{self.ignore_value} hides its pixels: set ignore_value to one that is no class."
            )
        if self.num_classes is None:
            return
        numbers = set(self.label_values.values()) - {self.ignore_value}
        wanted = set(range(self.num_classes))
        if numbers != wanted:
            odd = sorted(numbers ^ wanted)[0]
            does = "has no value for" if odd in wanted else "gives a value to"
            raise ConfigError(
                f"label_values {does} class {odd}: the {self.num_classes} classes are numbered "
                f"from 0, and {self.ignore_value} means ignored."
            )


_FIELDS = tuple(LabelFormat.__dataclass_fields__)
_DEFAULTS = {key: LabelFormat.__dataclass_fields__[key].default for key in _FIELDS}


@functools.lru_cache(maxsize=64)
def _table(
    num_classes: int | None,
    ignore_value: int,
    reduce_zero_label: bool,
    pairs: tuple[tuple[int, int], ...] | None,
    ignored: int,
    bits: int,
) -> np.ndarray:
    size = 2**bits
    table = np.full(size, BAD, dtype=np.int32)
    if pairs is not None:
        for value, number in pairs:
            if value < size:
                table[value] = ignored if number == ignore_value else number
    else:
        first = int(reduce_zero_label)
        end = size if num_classes is None else min(first + num_classes, size)
        table[first:end] = np.arange(end - first)
        table[:first] = ignored
    if ignore_value < size:
        table[ignore_value] = ignored
    table.setflags(write=False)
    return table


def _list_values(values: list[int], limit: int = 8) -> str:
    shown = [str(value) for value in values[:limit]]
    if len(values) > limit:
        return f"{', '.join(shown)} and {len(values) - limit} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
