"""Stopping a training from outside without losing work."""

import logging
import os
import signal
import threading
import time

from ..d2.utils import comm

__all__ = ["StopRequest"]

logger = logging.getLogger(__name__)

_SECOND_THOUGHT = 1.0  # seconds after which another signal is not the same request


class StopRequest:
    """While entered, signals ask the training to stop after its current step.

    SIGUSR1 asks in every kind of run (a batch system can send it some time before the limit). In a
    run of one process Ctrl-C and SIGTERM ask, too; a second one ends the process at once. With
    several processes these two keep their meaning, for launchers end the others of a failed run by
    SIGTERM.

    Attributes:
        wanted: whether this process was asked.
        agreed: whether all processes know that one was asked; for the trainer to set.
    """

    def __init__(self):
        self.wanted = False
        self.agreed: float | bool = False
        self._before: dict[int, object] = {}
        self._process = os.getpid()
        self._asked_at = 0.0

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is not threading.main_thread():
            return self  # Python sets handlers in the main thread only
        signals = [signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []
        if comm.get_world_size() == 1:
            signals += [signal.SIGINT, signal.SIGTERM]
        for number in signals:
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _ask(self, number: int, frame: object) -> None:
        if os.getpid() != self._process:  # a loading worker, which has inherited this handler
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        name = signal.Signals(number).name
        if not self.wanted:
            logger.warning("%s: stopping after this step.", name)
            self.wanted = True
            self._asked_at = time.monotonic()
        # The same request can come twice: from a terminal or `timeout`, and passed on by `make`.
        elif name != "SIGUSR1" and time.monotonic() > self._asked_at + _SECOND_THOUGHT:
            signal.signal(number, self._before[number])
            os.kill(os.getpid(), number)
