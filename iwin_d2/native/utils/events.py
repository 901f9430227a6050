"""What a training run records about itself, and the writers that put it somewhere."""

import datetime
import json
import logging
import time
from collections import defaultdict
from contextlib import contextmanager
from functools import cached_property

import torch
from fvcore.common.history_buffer import HistoryBuffer

from .file_io import PathManager

_storages: list["EventStorage"] = []


def get_event_storage() -> "EventStorage":
    """The storage of the innermost `with EventStorage():` block."""
    if not _storages:
        raise AssertionError("get_event_storage() works only inside a `with EventStorage():` block")
    return _storages[-1]


def has_event_storage() -> bool:
    """Whether there is a storage to write into at this moment."""
    return bool(_storages)


class EventStorage:
    """Histories of named scalars of a training run.

    Used as a context manager; code anywhere below reaches it by `get_event_storage()`.
    """

    def __init__(self, start_iter: int = 0):
        self._history: dict[str, HistoryBuffer] = defaultdict(HistoryBuffer)
        self._smoothing_hints: dict[str, bool] = {}
        self._latest: dict[str, tuple[float, int]] = {}
        self._iter = start_iter
        self._prefix = ""

    def put_scalar(self, name, value, smoothing_hint=True, cur_iter=None) -> None:
        """Record a number for this iteration.

        Args:
            name: what it is called.
            value: a number or one-element tensor.
            smoothing_hint: whether writers should show a median over the last iterations.
            cur_iter: the iteration to record it for, when not the storage's own.
        """
        name = self._prefix + name
        cur_iter = self._iter if cur_iter is None else cur_iter
        value = float(value)
        self._history[name].update(value, cur_iter)
        self._latest[name] = (value, cur_iter)
        hint = self._smoothing_hints.setdefault(name, smoothing_hint)
        assert hint == smoothing_hint, f"Scalar {name} was put with another smoothing_hint before."

    def put_scalars(self, *, smoothing_hint=True, cur_iter=None, **kwargs) -> None:
        """Record several numbers, by their keywords."""
        for name, value in kwargs.items():
            self.put_scalar(name, value, smoothing_hint=smoothing_hint, cur_iter=cur_iter)

    def history(self, name) -> HistoryBuffer:
        """All values of one scalar. Raises KeyError for a name never put."""
        if name not in self._history:
            raise KeyError(f"No history of a scalar named {name!r}.")
        return self._history[name]

    def histories(self) -> dict[str, HistoryBuffer]:
        """The histories of all scalars."""
        return self._history

    def latest(self) -> dict[str, tuple[float, int]]:
        """The last value of every scalar, with its iteration."""
        return self._latest

    def latest_with_smoothing_hint(self, window_size=20) -> dict[str, tuple[float, int]]:
        """As latest(), but scalars to be smoothed give the median of their last values."""
        return {
            name: (
                float(self._history[name].median(self.count_samples(name, window_size)))
                if self._smoothing_hints[name]
                else value,
                cur_iter,
            )
            for name, (value, cur_iter) in self._latest.items()
        }

    def count_samples(self, name, window_size=20) -> int:
        """How many values of a scalar lie in the last `window_size` iterations, at least 1."""
        recent = [it for _, it in self._history[name].values()[-window_size:]]
        return max(sum(it > self._iter - window_size for it in recent), 1)

    def step(self) -> None:
        """Go on to the next iteration (most users let the trainer set `iter`)."""
        self._iter += 1

    @property
    def iter(self) -> int:
        """The current iteration; the trainer sets it."""
        return self._iter

    @iter.setter
    def iter(self, value: int) -> None:
        self._iter = int(value)

    def __enter__(self):
        _storages.append(self)
        return self

    def __exit__(self, *exception):
        assert _storages.pop() is self

    @contextmanager
    def name_scope(self, name):
        """Within the block, names of scalars begin with `name/`."""
        outer = self._prefix
        self._prefix = name.rstrip("/") + "/"
        try:
            yield
        finally:
            self._prefix = outer


class EventWriter:
    """Puts what the current EventStorage holds somewhere; PeriodicWriter calls it."""

    def write(self) -> None:
        """Write what is new."""
        raise NotImplementedError

    def close(self) -> None:
        """Release files."""


class JSONWriter(EventWriter):
    """Appends one JSON object a line: the scalars of an iteration. Read it with pandas or jq."""

    def __init__(self, json_file, window_size=20):
        self._file = PathManager.open(json_file, "a")
        self._window_size = window_size
        self._last_write = -1

    def write(self) -> None:
        """Append the scalars that are newer than the last write."""
        storage = get_event_storage()
        rows: dict[int, dict] = defaultdict(dict)
        for name, (value, it) in storage.latest_with_smoothing_hint(self._window_size).items():
            if it > self._last_write:  # otherwise it is in the file already
                rows[it][name] = value
        for it in sorted(rows):
            rows[it]["iteration"] = it
            self._file.write(json.dumps(rows[it], sort_keys=True) + "\n")
            self._last_write = it
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorboardXWriter(EventWriter):
    """Writes scalars into a TensorBoard folder."""

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs):
        self._window_size = window_size
        self._arguments = {"log_dir": log_dir, **kwargs}
        self._last_write = -1

    @cached_property
    def _writer(self):
        # Imported at the first write: TensorBoard takes seconds to import.
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(**self._arguments)

    def write(self) -> None:
        """Write what is newer than the last write."""
        storage = get_event_storage()
        newest = self._last_write
        for name, (value, it) in storage.latest_with_smoothing_hint(self._window_size).items():
            if it > self._last_write:
                self._writer.add_scalar(name, value, it)
                newest = max(newest, it)
        self._last_write = newest

    def close(self) -> None:
        """Close the file, if anything was ever written."""
        if "_writer" in self.__dict__:
            self._writer.close()


class CommonMetricPrinter(EventWriter):
    """Logs one line: ETA, iteration, losses, times, learning rate, memory."""

    def __init__(self, max_iter: int | None = None, window_size: int = 20):
        self.logger = logging.getLogger(__name__)
        self._max_iter = max_iter
        self._window_size = window_size
        self._last_write: tuple[int, float] | None = None  # (iteration, clock)

    def _get_eta(self, storage) -> str | None:
        if self._max_iter is None:
            return None
        iteration = storage.iter
        if "time" in storage.histories():
            seconds = storage.history("time").median(1000) * (self._max_iter - iteration - 1)
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
            return str(datetime.timedelta(seconds=int(seconds)))
        # The first iterations have no "time" yet: estimate from the last line.
        eta = None
        if self._last_write is not None and iteration > self._last_write[0]:
            pace = (time.perf_counter() - self._last_write[1]) / (iteration - self._last_write[0])
            eta = str(datetime.timedelta(seconds=int(pace * (self._max_iter - iteration - 1))))
        self._last_write = (iteration, time.perf_counter())
        return eta

    def write(self) -> None:
        """Log the line of this iteration."""
        storage = get_event_storage()
        if storage.iter == self._max_iter:
            return  # after the last iteration (an evaluation's results): nothing new to show

        def median(name):
            return storage.history(name).median(storage.count_samples(name, self._window_size))

        histories = storage.histories()
        parts = []
        eta = self._get_eta(storage)
        if eta is not None:
            parts.append(f"eta: {eta}")
        parts.append(f"iter: {storage.iter}")
        parts += [f"{name}: {median(name):.4g}" for name in list(histories) if "loss" in name]
        if "time" in histories:
            parts.append(f"time: {median('time'):.4f}")
            parts.append(f"last_time: {histories['time'].latest():.4f}")
        if "data_time" in histories:
            parts.append(f"data_time: {median('data_time'):.4f}")
            parts.append(f"last_data_time: {histories['data_time'].latest():.4f}")
        if "lr" in histories:
            parts.append(f"lr: {histories['lr'].latest():.5g}")
        if torch.cuda.is_available():
            parts.append(f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M")
        self.logger.info(" " + "  ".join(parts))
