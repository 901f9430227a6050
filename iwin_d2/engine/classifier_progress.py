"""One line in the log of how far a classifier's training is."""

import datetime
import logging

import torch

from ..d2.utils.events import EventWriter, get_event_storage

__all__ = ["ClassifierProgress"]

logger = logging.getLogger(__name__)


class ClassifierProgress(EventWriter):
    """Logs time left, iteration, loss, learning rate, speed and memory."""

    def __init__(self, max_iter: int, per_epoch: float, unit: str, window: int = 20):
        """Prepare to log.

        Args:
            max_iter: of the training.
            per_epoch: iterations in an epoch.
            unit: "image" or "clip".
            window: iterations whose median is shown.
        """
        self._max_iter, self._per_epoch, self._unit = max_iter, per_epoch, unit
        self._window = window

    def write(self) -> None:
        storage = get_event_storage()
        if storage.iter >= self._max_iter:  # the last one is said
            return
        rate = f"{self._unit}s_per_second"
        loss, seconds, waited, speed = (
            storage.history(name).median(self._window)
            for name in ("total_loss", "time", "data_time", rate)
        )
        left = storage.history("time").median(1000) * (self._max_iter - storage.iter - 1)
        parts = [
            f"eta: {datetime.timedelta(seconds=int(left))}",
            f"epoch: {(storage.iter + 1) / self._per_epoch:.2f}",
            f"iter: {storage.iter}",
            f"loss: {loss:.4g}",
            f"lr: {storage.history('lr').latest():.5g}",
            f"{self._unit}s/s: {speed:.1f}",
            f"time: {seconds:.4f}",
            f"data_time: {waited:.4f}",
        ]
        if torch.cuda.is_available():
            parts.append(f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M")
        logger.info("  ".join(parts))
