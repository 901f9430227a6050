"""How the launchers of a run's machines meet, and tell each other of failures.

Each launcher has one connection to that of machine 0, for as long as the run lasts. Messages are
lines of JSON. A connection that closes before its machine has said that it is done means that the
machine, or its launcher, is gone.
"""

import contextlib
import json
import logging
import socket
import time
from multiprocessing.connection import wait

from ..errors import ConfigError, ProcessError, UserError

__all__ = ["Machines", "RemoteError", "listen"]

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_TRIES = 0.5


class RemoteError(ProcessError):
    """What another machine says of its failure; the message names the machine."""


class _Line:
    """A connection to the launcher of another machine."""

    def __init__(self, connection: socket.socket, machine: int | None = None):
        self.machine = machine
        self.done = False
        self.closed = False
        self._socket = connection
        self._unread = b""
        connection.settimeout(10)
        _notice_dead_peers(connection)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, **message) -> None:
        with contextlib.suppress(OSError):  # whoever has gone needs no message
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict]:
        """The messages that have come, at least a part of one; [] also where it has closed."""
        try:
            received = self._socket.recv(65536)
        except OSError:
            received = b""
        self.closed = not received
        *lines, self._unread = (self._unread + received).split(b"\n")
        try:
            messages = [json.loads(line) for line in lines]
        except ValueError:  # no launcher of ours
            messages = [None]
        if not all(isinstance(message, dict) for message in messages):
            self.closed = True
            return []
        return messages

    def close(self) -> None:
        self._socket.close()


class Machines:
    """The other machines of a run, as this one's launcher knows them.

    Attributes:
        lines: connections, which `multiprocessing.connection.wait` takes.
    """

    def __init__(self, rank: int, lines: list[_Line]):
        self.rank = rank
        self.lines = lines
        self._waiting: list[tuple[_Line, dict]] = []

    @classmethod
    def gather(
        cls, server: socket.socket, num_machines: int, settings: dict, timeout: float
    ) -> "Machines":
        """On machine 0: wait until every other machine has come.

        Args:
            server: listens at the address that all machines were given.
            num_machines: machine 0 included.
            settings: what all machines must have in common, by the flag's name.
            timeout: in seconds.

        Raises:
            ProcessError: not all came in time.
        """
        joined: dict[int, _Line] = {}
        callers: list[_Line] = []
        end = time.monotonic() + timeout
        while missing := set(range(1, num_machines)) - joined.keys():
            for ready in wait([server, *callers, *joined.values()], end - time.monotonic()):
                if ready is server:
                    callers.append(_Line(server.accept()[0]))
                elif ready in callers:
                    _admit(ready, callers, joined, missing, settings)
                elif not ready.receive() and ready.closed:
                    del joined[ready.machine]  # somebody has stopped it; it may come again
            if missing and time.monotonic() > end:
                sentence = _missing_sentence(missing, num_machines, timeout)
                for line in joined.values():
                    line.send(error=sentence)
                raise ProcessError(sentence)
        return cls(0, list(joined.values()))

    @classmethod
    def join(
        cls, address: tuple[str, int], rank: int, settings: dict, timeout: float
    ) -> tuple["Machines", dict]:
        """On another machine: report to machine 0; return also what it says when all are there.

        Raises:
            ProcessError: machine 0 cannot be reached, or it does not begin in time.
            ConfigError: it says that this machine does not fit.
        """
        end = time.monotonic() + timeout
        line = _Line(_connect(address, end, timeout), machine=0)
        line.send(machine_rank=rank, settings=settings)
        waiting: list[dict] = []
        while not waiting and not line.closed:
            if not wait([line], end - time.monotonic()):
                raise ProcessError(
                    f"Machine 0 did not begin within {timeout:.0f} seconds: look at its messages."
                )
            waiting = line.receive()
        if not waiting:
            raise ProcessError("Machine 0 has stopped before all machines came.")
        begin, *rest = waiting
        if "refused" in begin:
            raise ConfigError(begin["refused"])
        if "error" in begin:
            raise ProcessError(begin["error"])
        machines = cls(rank, [line])
        machines._waiting = [(line, message) for message in rest]
        return machines, begin

    def begin(self, **message) -> None:
        """On machine 0: tell all that they are complete."""
        for line in self.lines:
            line.send(**message)

    def check(self) -> None:
        """Read what has come.

        Raises:
            RemoteError: a machine has failed or gone.
        """
        for line in wait(self.lines, 0):
            self._waiting += [(line, message) for message in line.receive()]
        messages, self._waiting = self._waiting, []
        for line, message in messages:
            line.done |= "done" in message
            if "error" in message:
                raise RemoteError(message["error"])
        for line in self.lines:
            if line.closed and not line.done:
                raise RemoteError(
                    f"Machine {line.machine} is gone: it was switched off, its launcher was "
                    "killed, or the network failed."
                )
        self.lines = [line for line in self.lines if not line.closed]

    def report(self, error: BaseException) -> None:
        """Tell the others why this machine ends."""
        text = error.sentence if isinstance(error, UserError) else repr(error)
        if not isinstance(error, RemoteError):  # which names its machine
            text = f"On machine {self.rank}: {text}"
        for line in self.lines:
            line.send(error=text)

    def finish(self) -> None:
        """Tell the others that all is done here; machine 0 waits for them, as they need its store.

        Raises:
            RemoteError: a machine has failed or gone instead.
        """
        for line in self.lines:
            line.send(done=True)
        while self.rank == 0 and not all(line.done for line in self.lines):
            wait(self.lines)
            self.check()

    def close(self) -> None:
        """Close all connections."""
        for line in self.lines:
            line.close()


def listen(port: int, everywhere: bool, setting: str) -> socket.socket:
    """A listening socket, on loopback or on all interfaces; port 0 takes any that is free.

    Raises:
        ConfigError: the port is in use or not allowed; `setting` is what the person gave.
    """
    try:
        if everywhere and socket.has_dualstack_ipv6():
            family = socket.AF_INET6
            return socket.create_server(("", port), family=family, dualstack_ipv6=True)
        return socket.create_server(("" if everywhere else "127.0.0.1", port))
    except OSError as error:
        raise ConfigError(
            f"Port {port} of {setting} cannot be used ({error.strerror or error}): another run may "
            "have it; give another port."
        ) from error


def _admit(
    caller: _Line, callers: list[_Line], joined: dict, missing: set[int], settings: dict
) -> None:
    """Take in a caller that belongs to the run, refuse one that does not fit."""
    for message in caller.receive():
        rank, theirs = message.get("machine_rank"), message.get("settings")
        refusal = _refusal(rank, theirs, missing, settings)
        callers.remove(caller)
        if refusal:
            caller.send(refused=refusal)
            caller.close()
        else:
            caller.machine = rank
            joined[rank] = caller
            missing.remove(rank)
        return
    if caller.closed:
        callers.remove(caller)
        caller.close()


def _refusal(rank: object, theirs: object, missing: set[int], settings: dict) -> str | None:
    if theirs != settings:
        mine = " ".join(f"{flag} {value}" for flag, value in settings.items())
        return f"Machine 0 was started with {mine}: give the same on all machines."
    if rank not in missing:
        return f"--machine-rank {rank} is taken by another machine: give each its own."
    return None


def _connect(address: tuple[str, int], end: float, timeout: float) -> socket.socket:
    """Connect to machine 0, which may start later than this one."""
    told = False
    while True:
        try:
            return socket.create_connection(address, timeout=max(0.1, end - time.monotonic()))
        except OSError as error:
            if not told:
                where = f"{address[0]}:{address[1]}"
                logger.warning("Waiting for machine 0 at %s (%s).", where, error)
            told = True
            if time.monotonic() + _SECONDS_BETWEEN_TRIES > end:
                raise ProcessError(
                    f"Machine 0 could not be reached at {address[0]}:{address[1]} within "
                    f"{timeout:.0f} seconds ({error}): start it, or correct --dist-url."
                ) from error
        time.sleep(_SECONDS_BETWEEN_TRIES)


def _missing_sentence(missing: set[int], num_machines: int, timeout: float) -> str:
    ranks = ", ".join(map(str, sorted(missing)))
    return (
        f"Of {num_machines} machines these did not come within {timeout:.0f} seconds: {ranks}; "
        "start the tool there with their --machine-rank and the same --dist-url."
    )


def _notice_dead_peers(connection: socket.socket) -> None:
    """Have a connection close when the other machine has been silent for about two minutes."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):  # the names of Linux
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
