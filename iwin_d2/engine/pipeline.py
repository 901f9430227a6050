"""Work on long streams of items: in threads, in batches, in order, with bounded memory."""

import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["Progress", "batched_map", "ordered_map"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], workers: int, ahead: int
) -> Iterator[R]:
    """Yield function(item) for each item, in the items' order, worked out in threads.

    The items are drawn in the caller's thread, at most `ahead` before the one being yielded. What
    the function raises is raised here; items behind it that have not begun are dropped.

    Args:
        function: must be safe to be called from several threads.
        items: may be endless.
        workers: threads; 0 calls the function in the caller's thread, one item at a time.
        ahead: how many results may wait, at least 1.
    """
    if workers == 0:
        yield from map(function, items)
        return
    executor = ThreadPoolExecutor(workers)
    waiting: deque = deque()
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


def batched_map(
    function: Callable[[list[T]], Sequence[R]],
    items: Iterable[T],
    key: Callable[[T], Hashable],
    batch_size: int,
    window: int,
) -> Iterator[tuple[T, R]]:
    """Yield each item with its result, in the items' order; the function takes batches.

    A batch holds the oldest item and those of the same key among the `window` items that are held
    at a time, so that batches fill although keys alternate.

    Args:
        function: gives one result for each item of a batch.
        items: may be endless.
        key: of an item.
        batch_size: the largest batch.
        window: how many items are held at once, with or without their results.
    """
    source = enumerate(items)
    held: dict[int, T] = {}
    results: dict[int, R] = {}
    turn = 0
    while True:
        held.update(islice(source, window - len(held)))
        if not held:
            return
        wanted = key(held[turn])
        batch = [place for place in held if place not in results and key(held[place]) == wanted]
        batch = batch[:batch_size]
        results.update(zip(batch, function([held[place] for place in batch])))
        while turn in results:
            yield held.pop(turn), results.pop(turn)
            turn += 1


class Progress:
    """Says in the log, every few seconds, how far the work is, how fast, and what is left."""

    def __init__(
        self,
        noun: str,
        total: int | None = None,
        interval: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Start the clock.

        Args:
            noun: what is counted, in the plural.
            total: how many there are; None if nobody knows.
            interval: seconds between two lines.
            clock: gives the time in seconds.
        """
        self.noun = noun
        self.total = total
        self.count = 0
        self._interval = interval
        self._clock = clock
        self._start = self._said = clock()

    def step(self) -> None:
        """Count one more; write a line if it is time for one."""
        self.count += 1
        now = self._clock()
        if now - self._said >= self._interval:
            self._said = now
            logger.info(self._line(now))

    def speed(self) -> float:
        """Items a second since the start."""
        return self.count / max(self._clock() - self._start, 1e-9)

    def _line(self, now: float) -> str:
        speed = self.speed()
        if not self.total or self.count > self.total:
            return f"{self.count} {self.noun}, {speed:.2f} {self.noun}/s"
        left = round((self.total - self.count) / speed)
        return (
            f"{self.count} of {self.total} {self.noun} ({100 * self.count // self.total} %), "
            f"{speed:.2f} {self.noun}/s, {_duration(left)} left"
        )


def _duration(seconds: int) -> str:
    """1:02:03 or 2:03."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
