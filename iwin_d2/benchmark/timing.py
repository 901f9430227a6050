"""Timing alternatives in turn, so that a machine whose speed drifts treats them alike."""

import multiprocessing
import statistics
import time
from collections.abc import Callable

__all__ = ["peak_memory", "time_in_turn"]


def time_in_turn(
    candidates: dict[str, Callable[[], object]], rounds: int = 7, warmup: int = 2
) -> dict[str, tuple[float, float]]:
    """Time each candidate once a round.

    Returns:
        {name: (median seconds, median over the rounds of its time / the first candidate's)}.
    """
    for _ in range(warmup):
        for run in candidates.values():
            run()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    first = next(iter(times.values()))
    return {
        name: (
            statistics.median(values),
            statistics.median(value / base for value, base in zip(values, first)),
        )
        for name, values in times.items()
    }


def peak_memory(build: Callable[[], Callable[[], object]]) -> float:
    """Return the peak memory in MiB that running once takes, beyond what `build()` left.

    Runs in a process of its own, which nothing else has left memory in. Linux only.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(build, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(f"measuring the memory of {build} failed; see its output") from None
    finally:
        process.join()


def _measure(build, sender) -> None:
    run = build()
    before = _status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forget the peak so far
    run()
    sender.send(_status("VmHWM") - before)


def _status(name: str) -> float:
    """A line of /proc/self/status in MiB.

    Not resource.getrusage: its peak is inherited from the parent process.
    """
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(name))
    return int(line.split()[1]) / 2**10
