"""Run a function in several processes of this machine, and end them together.

How a process ended comes back by a file, so that nothing stays locked or half said when one is
killed.
"""

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist

from ..errors import ProcessError, UserError
from ..files import atomic_write
from .machines import Machines, RemoteError

__all__ = ["is_lost_connection", "is_lost_worker", "lost_connection_error", "run_processes"]

logger = logging.getLogger(__name__)

# Seconds: how long the loss of a connection waits for its reason to come to light; what the
# others get to end by themselves when one has failed, for some may be saving; between two looks.
_PATIENCE = 5
_GRACE = 10
_PERIOD = 0.25

# What a launcher that is asked to stop hands on, for in training it means "after this step".
_STOP = getattr(signal, "SIGUSR1", signal.SIGTERM)

# What gloo, NCCL and torch's store say of a connection that is gone.
_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Connection refused",
    "Connection was likely closed",
    "Broken pipe",
    "Socket closed",
    "remote process exited",
    "imed out waiting",
    "timeout caused pair closure",
)


def run_processes(
    function: Callable, args: tuple, count: int, first_rank: int, machines: Machines
) -> Any:
    """Call function(local_rank, *args) in `count` new processes; return what the first returns.

    As soon as one fails, here or on another machine, all are ended. A first Ctrl-C or SIGTERM is
    handed on to the processes as SIGUSR1, and so is SIGUSR1.

    Args:
        function: what to call; it can be pickled, and so can its arguments and what it returns.
        args: its arguments after the first.
        count: number of processes.
        first_rank: that of the first process; ranks are for messages.
        machines: the other machines of the run.

    Raises:
        ProcessError: a process was killed, or another machine has failed.
        BaseException: what a process has raised, with its traceback as the cause.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="iwin_d2-") as folder:
        children = []
        for local_rank in range(count):
            path = Path(folder, str(local_rank))
            process = context.Process(
                target=_run,
                args=(path, multiprocessing.get_start_method(), function, local_rank, args),
            )
            children.append(_Child(process, first_rank + local_rank, path))
        with _stopping_handed_on(children):
            try:
                _start(children)
                error = _watch(children, machines)
                if error is not None:
                    machines.report(error)
                _end(children, grace=_GRACE)
            except BaseException:
                _end(children, grace=0)
                raise
        if error is None:
            return children[0].outcome().result
        raise _gravest([error, *_errors(children)])


class _Outcome(NamedTuple):
    """How a process ended: what it returned, or what it raised."""

    result: Any = None
    error: BaseException | None = None
    trace: str = ""


class _ProcessTraceback(Exception):
    """Shows another process's traceback above the error that came from there."""

    def __str__(self) -> str:
        return "\n" + self.args[0]


def _run(path: Path, start_method: str, function: Callable, local_rank: int, args: tuple) -> None:
    """What a process does: call the function, and write down how that ended."""
    # A spawned process would spawn its loading workers too, each with its own copy of the records.
    multiprocessing.set_start_method(start_method, force=True)
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    signal.signal(_STOP, signal.default_int_handler)  # a training has a handler of its own
    try:
        _write(path, _Outcome(function(local_rank, *args)))
    except BaseException as error:
        _write(path, _Outcome(error=error, trace=traceback.format_exc()))
        logger.debug("Stopped: %s", error)  # into this process's log file
        sys.exit(1)


def _end_with_launcher() -> None:
    """End this process when the launcher is gone; it would wait for the others for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _write(path: Path, outcome: _Outcome) -> None:
    try:
        content = pickle.dumps(outcome)
        pickle.loads(content)  # some exceptions can only be pickled
    except Exception as error:
        content = pickle.dumps(outcome._replace(result=None, error=_substitute(outcome, error)))
    with atomic_write(path) as file:
        file.write(content)


def _substitute(outcome: _Outcome, reason: Exception) -> Exception:
    """An error that can be pickled, for an outcome that cannot because of `reason`."""
    if isinstance(outcome.error, UserError):
        return UserError(outcome.error.sentence)
    if outcome.error is not None:
        return RuntimeError(repr(outcome.error))
    return RuntimeError(f"The result cannot be taken to the launcher: {reason!r}")


class _Child:
    """A process, and how it ended."""

    def __init__(self, process: multiprocessing.Process, rank: int, path: Path):
        self.process = process
        self.rank = rank
        self.ended_by_us = False
        self._path = path
        self._outcome: _Outcome | None = None

    def outcome(self) -> _Outcome | None:
        """None while it runs."""
        if self._outcome is None:
            code = self.process.exitcode  # before the file is looked for: it is written earlier
            if self._path.exists():
                self._outcome = self._read()
            elif code is not None:
                self._outcome = _Outcome(error=None if self.ended_by_us else self._death(code))
        return self._outcome

    def _read(self) -> _Outcome:
        outcome = pickle.loads(self._path.read_bytes())
        if outcome.error is None:
            return outcome
        if is_lost_connection(outcome.error):
            return _Outcome(error=lost_connection_error(outcome.error, self.rank))
        outcome.error.__cause__ = _ProcessTraceback(f"Process {self.rank}: {outcome.trace}")
        return outcome

    def _death(self, code: int) -> BaseException:
        if code == -_STOP:
            return KeyboardInterrupt()  # it was asked to stop before it had begun
        if code >= 0:
            return ProcessError(
                f"Process {self.rank} ended with status {code} before its work was done: look at "
                "what it has printed."
            )
        name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
        reason = "somebody has ended it"
        if -code == signal.SIGKILL:
            reason = "the machine may have run out of memory, or somebody has ended it"
        elif -code in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL):
            reason = "that is a crash in compiled code; look at what it has printed"
        return ProcessError(
            f"Process {self.rank} was killed by {name}: {reason}. A training goes on from its last "
            "checkpoint with --resume."
        )


class _LostConnection(ProcessError):
    """The loss of a connection: a reason only where there is no other."""


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error says that another process of the run is gone or hangs."""
    if isinstance(error, (UserError, OSError)):
        return isinstance(error, _LostConnection)
    kinds = (dist.DistNetworkError, dist.DistStoreError)
    return isinstance(error, kinds) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in _LOST)
    )


def is_lost_worker(error: BaseException) -> bool:
    """Whether an error says that a loading worker is gone.

    PyTorch raises it by a signal's handler, wherever the process is at that moment.
    """
    return isinstance(error, RuntimeError) and "DataLoader worker (pid" in str(error)


def lost_connection_error(error: BaseException, rank: int) -> ProcessError:
    """The sentence for an error that `is_lost_connection`, in process `rank`."""
    said = str(error).strip().splitlines()[0]
    return _LostConnection(
        f"Process {rank} has lost the connection to another process ({said}): that one was killed, "
        "the machine may have run out of memory, or it hangs. A training goes on from its last "
        "checkpoint with --resume."
    )


def _errors(children: list[_Child]) -> list[BaseException]:
    """What those that have ended have raised."""
    outcomes = [child.outcome() for child in children]
    return [outcome.error for outcome in outcomes if outcome and outcome.error is not None]


def _gravest(errors: list[BaseException]) -> BaseException:
    """The one that explains the others: what a process says itself, else how it was killed."""

    def order(error: BaseException) -> int:
        if isinstance(error, ProcessError):
            return 3 if is_lost_connection(error) else 1
        return 0 if isinstance(error, UserError) else 2

    return min(errors, key=order)


def _start(children: list[_Child]) -> None:
    """Start the processes; Ctrl-C, which a terminal sends to all, is the launcher's alone."""
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main else None
    try:
        for child in children:
            child.process.start()
    finally:
        if in_main:
            signal.signal(signal.SIGINT, before)


def _watch(children: list[_Child], machines: Machines) -> BaseException | None:
    """Wait until all have ended, or one has failed; return what it has raised."""
    lost_at = None
    while True:
        errors = _errors(children)
        try:
            machines.check()
            if not errors and all(child.outcome() for child in children):
                machines.finish()
                return None
        except RemoteError as error:
            errors.append(error)
        if errors:
            error = _gravest(errors)
            lost_at = lost_at or time.monotonic()
            if not is_lost_connection(error) or time.monotonic() - lost_at > _PATIENCE:
                return error
        running = [child.process.sentinel for child in children if child.outcome() is None]
        wait([*running, *machines.lines], _PERIOD)


def _end(children: list[_Child], grace: float) -> None:
    """Let the processes end by themselves for `grace` seconds, then end them."""
    started = [child for child in children if child.process.pid is not None]
    _join(started, grace)
    for end in ("terminate", "kill"):
        for child in started:
            if child.outcome() is None:
                child.ended_by_us = True
            if child.process.is_alive():
                getattr(child.process, end)()
        _join(started, grace=5)


def _join(children: list[_Child], grace: float) -> None:
    deadline = time.monotonic() + grace
    for child in children:
        child.process.join(max(0, deadline - time.monotonic()))


@contextmanager
def _stopping_handed_on(children: list[_Child]) -> Iterator[None]:
    """Hand a first Ctrl-C or SIGTERM, and SIGUSR1, on to the processes; the second one counts."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python sets handlers in the main thread only
        return
    signals = {_STOP, signal.SIGINT, signal.SIGTERM}
    before = {number: signal.getsignal(number) for number in signals}

    def hand_on(number: int, frame: object) -> None:
        name = signal.Signals(number).name
        print(f"{name}: asking the processes to stop; again, to end at once.", file=sys.stderr)
        for child in children:
            if child.process.is_alive():
                os.kill(child.process.pid, _STOP)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, _raise_exit)

    for number in signals:
        signal.signal(number, hand_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_exit(number: int, frame: object) -> None:
    raise SystemExit(128 + number)  # what a shell says of a program that a signal has ended
