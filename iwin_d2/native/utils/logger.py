"""Set-up of the console and file logs."""

import logging
import os
import sys

from termcolor import colored

from .file_io import PathManager


class _Formatter(logging.Formatter):
    """Marks warnings and errors; in colour on a console."""

    def __init__(self, color: bool):
        prefix = "[%(asctime)s %(name)s]: "
        prefix = colored(prefix, "green") if color else prefix
        super().__init__(prefix + "%(message)s", datefmt="%m/%d %H:%M:%S")
        self._color = color

    def formatMessage(self, record: logging.LogRecord) -> str:
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
) -> logging.Logger:
    """Make the loggers below `name` write to the console (main process) and to a file.

    `output` is a folder, which gets `log.txt`, or a file ending in .txt or .log; processes other
    than the first append `.rank<n>`. What an earlier call set up for `name` is replaced.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in logger.handlers[:]:  # those of an earlier run in the same process
        logger.removeHandler(handler)
        handler.close()
    if distributed_rank == 0:
        console = logging.StreamHandler(stream=sys.stdout)
        console.setLevel(logging.INFO)
        console.setFormatter(_Formatter(color and sys.stdout.isatty()))
        logger.addHandler(console)
    if output is not None:
        is_file = output.endswith((".txt", ".log"))
        file_name = output if is_file else os.path.join(output, "log.txt")
        if distributed_rank > 0:
            file_name += f".rank{distributed_rank}"
        PathManager.mkdirs(os.path.dirname(file_name) or ".")
        file = logging.FileHandler(file_name, encoding="utf-8")
        file.setFormatter(_Formatter(color=False))
        logger.addHandler(file)
    return logger
