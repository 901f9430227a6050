"""Timing alternatives in turn, so that a machine whose speed drifts treats them alike."""

import multiprocessing
import re
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

__all__ = [
    "in_own_process",
    "memory_status",
    "memory_together",
    "peak_memory",
    "runs_and_reasons",
    "seconds",
    "take_turns",
    "time_in_turn",
    "why_not",
]


def take_turns(
    candidates: dict[str, Callable[[], object]], rounds: int, warmup: int
) -> dict[str, list]:
    """Call each candidate once a round, in the opposite order every other round.

    Returns:
        what each returned in the rounds after the first `warmup`.
    """
    results: dict[str, list] = {name: [] for name in candidates}
    for number in range(warmup + rounds):
        names = list(candidates) if number % 2 == 0 else list(reversed(candidates))
        for name in names:
            results[name].append(candidates[name]())
    return {name: values[warmup:] for name, values in results.items()}


def time_in_turn(
    candidates: dict[str, Callable[[], object]],
    rounds: int = 7,
    warmup: int = 2,
    clock: Callable[[Callable[[], object]], float] | None = None,
) -> dict[str, tuple[float, float]]:
    """Time each candidate once a round.

    Args:
        candidates: what to run, by name.
        rounds: timings of each.
        warmup: rounds before them.
        clock: returns the seconds that running takes; `seconds` by default.

    Returns:
        {name: (median seconds, median over the rounds of its time / the first candidate's)}.
    """
    timed = {name: partial(clock or seconds, run) for name, run in candidates.items()}
    times = take_turns(timed, rounds, warmup)
    first = next(iter(times.values()))
    return {
        name: (
            statistics.median(values),
            statistics.median(value / base for value, base in zip(values, first)),
        )
        for name, values in times.items()
    }


def seconds(run: Callable[[], object]) -> float:
    """Run once; return how long it took."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def runs_and_reasons(
    candidates: dict[str, Callable[[], object]],
) -> tuple[dict[str, Callable[[], object]], dict[str, str]]:
    """Run each once; return those that run, and why the others do not."""
    reasons = {name: why_not(run) for name, run in candidates.items()}
    runs = {name: run for name, run in candidates.items() if reasons[name] is None}
    return runs, {name: reason for name, reason in reasons.items() if reason is not None}


def why_not(run: Callable[[], object]) -> str | None:
    """Run once; return the reason in one line where that is an error."""
    try:
        run()
    except Exception as error:  # of whatever compiler
        reason = re.search(r"FlexAttention does not[^.]*", str(error))
        # No stroke, which would end the cell of a table.
        return reason[0] if reason else str(error).partition("\n")[0][:100].replace("|", "/")
    return None


def peak_memory(build: Callable[[], Callable[[], object]]) -> float:
    """Return the peak memory in MiB that running once takes, beyond what `build()` left.

    Runs in a process of its own, which nothing else has left memory in. Linux only.
    """
    return in_own_process(partial(_measure, build))


def in_own_process(function: Callable[[], object]) -> object:
    """Call a picklable function in a new process and return what it returns."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    usual = multiprocessing.get_start_method()
    process = context.Process(target=_send, args=(function, usual, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(f"measuring {function} failed; see its output") from None
    finally:
        process.join()


def _send(function, start_method: str, sender) -> None:
    # A spawned process would spawn its own, data-loading workers for instance, too.
    multiprocessing.set_start_method(start_method, force=True)
    sender.send(function())


def _measure(build) -> float:
    run = build()
    before = memory_status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forget the peak so far
    run()
    return memory_status("VmHWM") - before


def memory_status(name: str) -> float:
    """A line of /proc/self/status, such as VmRSS or VmHWM (the peak of it), in MiB.

    Not resource.getrusage: its peak is inherited from the parent process.
    """
    return _kilobytes("/proc/self/status", name) / 2**10


def memory_together(parent: int | str, children: Sequence[int]) -> float:
    """The memory in MiB of a process and its forks, pages that several have counted once.

    Pages of libraries count as the parent's, also those that strangers have, too, which the
    system's proportional set size would spread over all: what else runs makes no difference.
    """
    own = sum(
        _kilobytes(f"/proc/{process}/smaps_rollup", name)
        for process in (parent, *children)
        for name in ("Pss_Anon:", "Pss_Shmem:")
    )
    return (own + _kilobytes(f"/proc/{parent}/status", "RssFile")) / 2**10


def _kilobytes(path: str, name: str) -> int:
    with open(path) as file:
        return int(next(line for line in file if line.startswith(name)).split()[1])
