"""What a training run records about itself, and the writers that put it somewhere."""

import datetime
import json
import logging
import math
from collections import defaultdict
from contextlib import contextmanager
from functools import cached_property

import torch
from fvcore.common.history_buffer import HistoryBuffer

from .file_io import PathManager

_storages: list["EventStorage"] = []


def get_event_storage() -> "EventStorage":
    """The storage of the innermost `with EventStorage():` block; there must be one."""
    assert _storages, "get_event_storage() works only inside a `with EventStorage():` block"
    return _storages[-1]


def has_event_storage() -> bool:
    """Whether there is a storage to write into at this moment."""
    return bool(_storages)


def put_scalar(name: str, value: float) -> None:
    """Record a number in the running training's storage; outside a training, do nothing."""
    if _storages:
        _storages[-1].put_scalar(name, value)


class EventStorage:
    """Histories of named scalars of a training run; a context manager.

    Code inside its block reaches it by `get_event_storage()`. The trainer sets `iter`.
    """

    def __init__(self, start_iter: int = 0):
        self.iter = start_iter
        self._history: dict[str, HistoryBuffer] = {}
        self._smoothing_hints: dict[str, bool] = {}
        self._latest: dict[str, tuple[float, int]] = {}
        self._prefix = ""

    def put_scalar(self, name, value, smoothing_hint=True, cur_iter=None) -> None:
        """Record a number or one-element tensor for this iteration.

        `smoothing_hint`: whether writers should show a median over the last iterations.
        """
        name = self._prefix + name
        cur_iter = self.iter if cur_iter is None else cur_iter
        value = float(value)
        self._history.setdefault(name, HistoryBuffer()).update(value, cur_iter)
        self._latest[name] = (value, cur_iter)
        hint = self._smoothing_hints.setdefault(name, smoothing_hint)
        assert hint == smoothing_hint, f"Scalar {name} was put with another smoothing_hint before."

    def put_scalars(self, *, smoothing_hint=True, cur_iter=None, **kwargs) -> None:
        """Record several numbers, by their keywords."""
        for name, value in kwargs.items():
            self.put_scalar(name, value, smoothing_hint=smoothing_hint, cur_iter=cur_iter)

    def history(self, name) -> HistoryBuffer:
        """All values of one scalar. Raises KeyError for a name never put."""
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
            name: (self.median(name, window_size) if self._smoothing_hints[name] else value, it)
            for name, (value, it) in self._latest.items()
        }

    def median(self, name, window_size=20) -> float:
        """The median of a scalar's values in the last `window_size` iterations, at least one."""
        recent = [it for _, it in self._history[name].values()[-window_size:]]
        count = max(sum(it > self.iter - window_size for it in recent), 1)
        return float(self._history[name].median(count))

    def __enter__(self):
        _storages.append(self)
        return self

    def __exit__(self, *exception):
        assert _storages.pop() is self

    @contextmanager
    def name_scope(self, name):
        """Within the block, names of scalars begin with `name/`."""
        outer, self._prefix = self._prefix, name.rstrip("/") + "/"
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


class _ScalarWriter(EventWriter):
    """Base of the writers that put every scalar of an iteration once."""

    def __init__(self, window_size: int):
        self._window_size = window_size
        self._last_write = -1

    def _new_scalars(self) -> list[tuple[str, float, int]]:
        """(name, value, iteration) of all that is newer than the last call."""
        latest = get_event_storage().latest_with_smoothing_hint(self._window_size)
        new = [(name, value, it) for name, (value, it) in latest.items() if it > self._last_write]
        self._last_write = max((it for _, _, it in new), default=self._last_write)
        return new


class JSONWriter(_ScalarWriter):
    """Appends one JSON object a line: the scalars of an iteration. Read it with pandas or jq."""

    def __init__(self, json_file, window_size=20):
        super().__init__(window_size)
        self._file = PathManager.open(json_file, "a")

    def write(self) -> None:
        rows: dict[int, dict] = defaultdict(dict)
        for name, value, it in self._new_scalars():
            if math.isfinite(value):  # JSON has no other numbers
                rows[it][name] = value
        for it in sorted(rows):
            self._file.write(json.dumps({**rows[it], "iteration": it}, sort_keys=True) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorboardXWriter(_ScalarWriter):
    """Writes scalars into a TensorBoard folder."""

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs):
        super().__init__(window_size)
        self._arguments = {"log_dir": log_dir, **kwargs}

    @cached_property
    def _writer(self):
        # Imported at the first write: TensorBoard takes seconds to import.
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(**self._arguments)

    def write(self) -> None:
        for name, value, it in self._new_scalars():
            self._writer.add_scalar(name, value, it)

    def close(self) -> None:
        if "_writer" in self.__dict__:
            self._writer.close()


class CommonMetricPrinter(EventWriter):
    """Logs one line: ETA, iteration, losses, times, learning rate, memory."""

    def __init__(self, max_iter: int | None = None, window_size: int = 20):
        self.logger = logging.getLogger(__name__)
        self._max_iter = max_iter
        self._window_size = window_size

    def _get_eta(self, storage) -> str | None:
        if self._max_iter is None or "time" not in storage.histories():
            return None
        seconds = storage.history("time").median(1000) * (self._max_iter - storage.iter - 1)
        storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
        return str(datetime.timedelta(seconds=int(seconds)))

    def write(self) -> None:
        storage = get_event_storage()
        if storage.iter == self._max_iter:
            return  # after the last iteration (an evaluation's results): nothing new to show
        histories, eta = storage.histories(), self._get_eta(storage)
        parts = [] if eta is None else [f"eta: {eta}"]
        parts.append(f"iter: {storage.iter}")
        for name in [name for name in histories if "loss" in name]:
            parts.append(f"{name}: {storage.median(name, self._window_size):.4g}")
        for name in [name for name in ("time", "data_time") if name in histories]:
            parts.append(f"{name}: {storage.median(name, self._window_size):.4f}")
            parts.append(f"last_{name}: {histories[name].latest():.4f}")
        if "lr" in histories:
            parts.append(f"lr: {histories['lr'].latest():.5g}")
        if torch.cuda.is_available():
            parts.append(f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M")
        self.logger.info(" " + "  ".join(parts))
