"""Whole models against each other: time beside the machine's rates, and memory."""

from collections.abc import Callable, Mapping

from .rates import time_with_rates
from .table import against, table
from .timing import peak_memory

__all__ = ["compare"]

Run = Callable[[], object]


def compare(
    title: str,
    builds: Mapping[str, Callable[[], Run]],
    rounds: int,
    note: str = "",
    goals: Mapping[str, str] | None = None,
    items: tuple[int, str] | None = None,
) -> list[str]:
    """Time models in turn, and measure the memory of each.

    Args:
        title: of the table.
        builds: what builds each model and returns what runs it once; picklable. The first is ours.
        rounds: timings of each.
        note: for below the table, before the rates.
        goals: what ratios of time are to reach.
        items: of a run, and what a column is called that tells how many of them a second: (8,
            "images/s"); None for no such column.

    Returns:
        the lines of a table.
    """
    times, rates = time_with_rates({name: made() for name, made in builds.items()}, rounds)
    peaks = {name: peak_memory(made) for name, made in builds.items()}
    rows = [
        (
            name,
            f"{1000 * seconds:.0f}",
            *([f"{items[0] / seconds:.1f}"] if items else []),
            against(f"{ratio:.2f}", (goals or {}).get(name)),
            f"{peaks[name]:.0f}",
        )
        for name, (seconds, ratio) in times.items()
    ]
    note = f"{note} In the same rounds: {rates.describe()}.".lstrip()
    rate = [items[1]] if items else []
    return table(title, ("", "median ms", *rate, "time / ours", "peak MiB"), rows, note)
