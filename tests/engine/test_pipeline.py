"""Threads, batches and progress of long streams."""

import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iwin_d2.engine import pipeline
from iwin_d2.engine.pipeline import Progress, batched_map, ordered_map


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_ordered_map_keeps_order_and_draws_no_more_than_it_may(workers):
    drawn = 0

    def items():
        nonlocal drawn
        while True:
            drawn += 1
            yield drawn

    results = ordered_map(lambda item: item * item, items(), workers, ahead=4)
    assert list(itertools.islice(results, 10)) == [n * n for n in range(1, 11)]
    assert drawn <= 10 + 5
    results.close()


def test_ordered_map_works_in_other_threads_only_if_there_are_workers():
    here = threading.get_ident()
    assert list(ordered_map(lambda _: threading.get_ident(), [1, 2], 0, 1)) == [here, here]
    assert here not in list(ordered_map(lambda _: threading.get_ident(), [1, 2], 2, 1))


@pytest.mark.parametrize("workers", [0, 2])
def test_ordered_map_raises_what_the_function_raises_in_its_turn(workers):
    results = ordered_map(lambda item: 1 / item, [1, 2, 0, 4], workers, ahead=3)
    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 5), st.integers(1, 12))
def test_batched_map_batches_equal_keys_in_order(keys, batch_size, window):
    batches, held = [], 0

    def items():
        nonlocal held
        for item in enumerate(keys):
            held += 1
            assert held <= window
            yield item

    def function(batch):
        batches.append(batch)
        return [number for number, _ in batch]

    results = []
    for item, result in batched_map(function, items(), lambda item: item[1], batch_size, window):
        results.append((item, result))
        held -= 1
    assert results == [((number, key), number) for number, key in enumerate(keys)]
    assert all(len({key for _, key in batch}) == 1 for batch in batches)
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert sum(map(len, batches)) == len(keys)


def test_batched_map_fills_batches_though_keys_alternate():
    sizes = []

    def function(batch):
        sizes.append(len(batch))
        return batch

    list(batched_map(function, [0, 1] * 8, key=lambda item: item, batch_size=4, window=8))
    assert sizes == [4, 4, 4, 4]


@pytest.fixture
def lines(monkeypatch):
    """What is logged."""
    lines = []
    monkeypatch.setattr(pipeline.logger, "info", lines.append)
    return lines


class Clock:
    time = 0.0

    def __call__(self):
        return self.time


def steps(progress, clock, count, seconds):
    for _ in range(count):
        clock.time += seconds
        progress.step()


def test_progress_says_speed_and_what_is_left(lines):
    clock = Clock()
    progress = Progress("frames", 100, interval=5, clock=clock)
    steps(progress, clock, 25, 0.5)
    assert lines == [
        "10 of 100 frames (10 %), 2.00 frames/s, 0:45 left",
        "20 of 100 frames (20 %), 2.00 frames/s, 0:40 left",
    ]
    assert progress.speed() == 2


def test_progress_without_a_total_or_beyond_it(lines):
    for total in (None, 5):
        clock = Clock()
        steps(Progress("images", total, interval=10, clock=clock), clock, 10, 1)
    assert lines == ["10 images, 1.00 images/s"] * 2


def test_progress_of_hours(lines):
    clock = Clock()
    steps(Progress("images", 2000, interval=10, clock=clock), clock, 1, 10)
    assert lines[0].endswith("5:33:10 left")
