"""Set-up of the console and file logs."""

import logging
import os
import sys

from .file_io import PathManager


def setup_logger(
    output: str | None = None, distributed_rank: int = 0, *, name: str = "iwin_d2"
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
    line = "[%(asctime)s %(name)s %(levelname)s]: %(message)s"
    formatter = logging.Formatter(line, datefmt="%m/%d %H:%M:%S")
    if distributed_rank == 0:
        console = logging.StreamHandler(stream=sys.stdout)
        console.setLevel(logging.INFO)
        console.setFormatter(formatter)
        logger.addHandler(console)
    if output is not None:
        is_file = output.endswith((".txt", ".log"))
        file_name = output if is_file else os.path.join(output, "log.txt")
        if distributed_rank > 0:
            file_name += f".rank{distributed_rank}"
        PathManager.mkdirs(os.path.dirname(file_name) or ".")
        file = logging.FileHandler(file_name, encoding="utf-8")
        file.setFormatter(formatter)
        logger.addHandler(file)
    return logger
