"""What was loaded or converted, as a table."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Report", "some"]

_LONG = 120  # characters of a name that are shown
_COLUMNS = ("mapped", "missing", "unexpected")


@dataclass(frozen=True)
class Report:
    """What became of the tensors of a file and of a model.

    Attributes:
        title: what was done to what.
        loaded: the model's names of what the file gave, with the file's names for it.
        missing: the model's names that the file gave nothing for, with the reason.
        unexpected: the file's names that went nowhere, with the reason.
        notes: sentences on what should be known beside that.
    """

    title: str
    loaded: dict[str, str]
    missing: dict[str, str] = field(default_factory=dict)
    unexpected: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The title, the table and the notes."""
        return "\n".join([self.title, *self._table(), *(f"note: {text}" for text in self.notes)])

    def lines(self) -> list[str]:
        """Every tensor in a line of its own: where it came from, or why it did not."""
        return [
            *(f"{name} <- {origin}" for name, origin in sorted(self.loaded.items())),
            *(f"{name}: missing, {reason}" for name, reason in sorted(self.missing.items())),
            *(f"{name}: unexpected, {reason}" for name, reason in sorted(self.unexpected.items())),
        ]

    def _table(self) -> list[str]:
        """A line for each part of the model or the file, and one for all."""
        rows: dict[str, list[int]] = {}
        reasons: dict[str, set[str]] = {}
        for column, names in enumerate((self.loaded, self.missing, self.unexpected)):
            for name, text in names.items():
                part = _part(name)
                rows.setdefault(part, [0, 0, 0])[column] += 1
                if column:
                    reasons.setdefault(part, set()).add(text)
        lines = [("part", *_COLUMNS, "")]
        for part in sorted(rows):
            why = "; ".join(sorted(reasons.get(part, ())))
            lines.append((part, *map(_count, rows[part]), why))
        sums = [sum(row[column] for row in rows.values()) for column in range(3)]
        lines.append(("all", *map(str, sums), ""))
        return _aligned(lines)


def _part(name: str) -> str:
    """The part of a model that a tensor is of: the first words of its name, without numbers."""
    words = name.split(".")
    return re.sub(r"\.?\d*$", "", ".".join(words[: min(2, max(len(words) - 2, 1))]))


def _count(number: int) -> str:
    return str(number) if number else "-"


def _aligned(lines: Iterable[tuple[str, ...]]) -> list[str]:
    """Lines with columns of equal width, the numbers to the right."""
    lines = list(lines)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(
            text.ljust(width) if column in (0, len(line) - 1) else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    ]


def some(names: Iterable[str], count: int = 3) -> str:
    """The first few names, for a message."""
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(map(_shown, names[:count])) + more


def _shown(name: str) -> str:
    """A name as a message can have it, whatever a file calls its tensors."""
    name = name if name.isprintable() else ascii(name)
    return name if len(name) <= _LONG else f"{name[:_LONG]}..."
