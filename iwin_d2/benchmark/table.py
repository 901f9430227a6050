"""Tables in Markdown, as docs/benchmarks.md shows them."""

from collections.abc import Sequence

__all__ = ["against", "table"]


def table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], note: str = ""
) -> list[str]:
    """Return the lines of a table with its heading, and a note below it."""
    lines = [f"### {title}", "", f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return [*lines, "", *([note, ""] if note else [])]


def against(figure: str, goal: str | None) -> str:
    """A figure with what it is to reach beside it."""
    return figure if goal is None else f"{figure} ({goal})"
