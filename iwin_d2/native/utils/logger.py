"""Set-up of the console and file logs."""

import functools
import logging
import os
import sys
import time

from termcolor import colored

from .file_io import PathManager

__all__ = ["create_small_table", "log_every_n_seconds", "setup_logger"]


class _Formatter(logging.Formatter):
    """Shortens the root of logger names and marks warnings and errors."""

    def __init__(self, *args, root_name: str, abbrev_name: str, color: bool, **kwargs):
        super().__init__(*args, **kwargs)
        self._root_name = root_name
        self._abbrev_name = abbrev_name
        self._color = color

    def formatMessage(self, record: logging.LogRecord) -> str:
        if record.name == self._root_name or record.name.startswith(self._root_name + "."):
            record.name = self._abbrev_name + record.name[len(self._root_name) :]
        line = super().formatMessage(record)
        if record.levelno < logging.WARNING:
            return line
        level = record.levelname
        return f"{colored(level, 'red') if self._color else level} {line}"


def setup_logger(
    output: str | None = None,
    distributed_rank: int = 0,
    *,
    color: bool = True,
    name: str = "iwin_d2",
    abbrev_name: str | None = None,
) -> logging.Logger:
    """Make the loggers below `name` write to the console (main process) and to a file.

    What an earlier call set up for `name` is replaced, so no line is logged twice.

    Args:
        output: a folder, which gets `log.txt`, or a file name ending in .txt or .log; None for
            no file. Processes other than the first append `.rank<n>` to it.
        distributed_rank: this process's rank.
        color: colour the console lines.
        name: the root of the loggers to set up.
        abbrev_name: what to write in place of `name`; None keeps it.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in logger.handlers[:]:  # those of an earlier run in the same process
        logger.removeHandler(handler)
        handler.close()
    prefix = "[%(asctime)s %(name)s]: "
    make = functools.partial(
        _Formatter,
        datefmt="%m/%d %H:%M:%S",
        root_name=name,
        abbrev_name=name if abbrev_name is None else abbrev_name,
    )
    if distributed_rank == 0:
        console = logging.StreamHandler(stream=sys.stdout)
        console.setLevel(logging.INFO)
        color = color and sys.stdout.isatty()
        shown = colored(prefix, "green") if color else prefix
        console.setFormatter(make(shown + "%(message)s", color=color))
        logger.addHandler(console)
    if output is not None:
        file_name = output
        if not output.endswith((".txt", ".log")):
            file_name = os.path.join(output, "log.txt")
        if distributed_rank > 0:
            file_name += f".rank{distributed_rank}"
        PathManager.mkdirs(os.path.dirname(file_name) or ".")
        file = logging.FileHandler(file_name, encoding="utf-8")
        file.setFormatter(make(prefix + "%(message)s", color=False))
        logger.addHandler(file)
    return logger


_last_logged: dict[tuple, float] = {}


def log_every_n_seconds(lvl: int, msg: str, n: float = 1, *, name: str | None = None) -> None:
    """Log at most once in n seconds from the same place in the code."""
    frame = sys._getframe(1)
    place, now = (frame.f_code.co_filename, frame.f_lineno), time.monotonic()
    if now - _last_logged.get(place, -float("inf")) >= n:
        _last_logged[place] = now
        logging.getLogger(name or frame.f_globals["__name__"]).log(lvl, msg)


def create_small_table(small_dict: dict[str, float]) -> str:
    """A one-row table of a few numbers, for logs."""
    from tabulate import tabulate

    keys, values = zip(*small_dict.items())
    return tabulate([values], headers=keys, tablefmt="pipe", floatfmt=".3f", numalign="center")
