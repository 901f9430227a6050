"""What the command-line tools share: errors as sentences, logs, output folders, devices."""

import argparse
import logging
import math
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from omegaconf.errors import (
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from ..d2 import describe_framework
from ..d2.utils import comm
from ..d2.utils.logger import setup_logger
from ..errors import ConfigError, UserError
from ..ops import describe_operators
from .processes import is_lost_connection, is_lost_worker

__all__ = [
    "count",
    "make_output_dir",
    "name_missing_values",
    "pick_device",
    "run_tool",
    "score",
    "start_logs",
]

_TRACEBACK_VARIABLE = "IWIN_D2_TRACEBACK"
logger = logging.getLogger(__name__)


def run_tool(main: Callable) -> int:
    """Call main() and return the exit status of the program.

    A UserError becomes its sentence on stderr and status 1; IWIN_D2_TRACEBACK=1 shows the
    traceback, too. main may return a status.
    """
    try:
        with name_missing_values():
            status = main()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        if os.environ.get(_TRACEBACK_VARIABLE, "0") not in ("", "0"):
            traceback.print_exc()
        logger.debug("Stopped: %s", sentence)  # into the log file
        print(sentence, file=sys.stderr)
        return 1
    return status if isinstance(status, int) else 0


@contextmanager
def name_missing_values() -> Iterator[None]:
    """Turn errors about config values that are not there into a ConfigError.

    Of one left at ???, it says what to add to the command line.
    """
    try:
        yield
    # Native's instantiate makes a ConfigError, Detectron2's leaves omegaconf's error as it is.
    except (ConfigError, MissingMandatoryValue, InterpolationToMissingValueError) as error:
        # The cause may also be another process's traceback, with omegaconf's source in it.
        cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else ""
        found = re.search(r"Missing mandatory value: ([^\s():,]+)", f"{error} {cause}")
        if found is None:
            raise
        key = found[1]
        raise ConfigError(f"{key} is not set: add {key}=... to the command line.") from error
    except OmegaConfBaseException as error:
        reason = str(error).partition("\n")[0]
        found = re.search(r"full_key: (\S+)", str(error))
        key = f"The config's {found[1]}" if found else "A value of the config"
        raise ConfigError(
            f"{key} cannot be read ({reason}): correct it, or what it refers to."
        ) from error


def _sentence(error: Exception) -> str | None:
    """The sentence of a UserError, or of an error of others that has one reason."""
    if isinstance(error, UserError):
        return error.sentence
    if isinstance(error, FloatingPointError):  # of a model in evaluation; training names the batch
        return (
            f"Numbers in the model are not finite ({error}): its weights are damaged, or their "
            "training had diverged; take another checkpoint."
        )
    if is_lost_worker(error):
        return (
            f"A process that loads data has ended ({str(error).strip().rstrip('.')}): the "
            "machine may have run out of memory or shared memory (/dev/shm); lower num_workers in "
            "dataloader.train and dataloader.test."
        )
    return None


def count(least: int) -> Callable[[str], int]:
    """A type of command-line arguments: a whole number, at least so many."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is not a number of at least {least}")
        return int(text)

    return number


def score(text: str) -> float:
    """A type of command-line arguments: a score of detections."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1")
    return value


def start_logs(output_dir: str | None, rank: int = 0) -> None:
    """Set up this package's log, on the console and in output_dir/log.txt; say what runs.

    May be called again in one process, for another run.
    """
    for name in ("iwin_d2", "detectron2", "fvcore"):
        root = logging.getLogger(name)
        for handler in root.handlers[:]:
            root.removeHandler(handler)
            handler.close()
    # Detectron2's caches by its arguments, and would take the removed handlers for set up.
    getattr(setup_logger, "cache_clear", lambda: None)()
    setup_logger(output_dir or None, rank, name="iwin_d2")
    # What a training logs of an error. A filter of a handler would not last, for frameworks set up
    # their handlers anew.
    logging.getLogger(f"{__package__}.trainer").addFilter(_is_cause)
    logger.info(describe_framework())
    logger.info(describe_operators())


def _is_cause(record: logging.LogRecord) -> bool:
    """Whether to log a record: not the traceback of what another process's end has brought."""
    error = record.exc_info[1] if record.exc_info else None
    return error is None or not is_lost_connection(error)


def make_output_dir(path: str, setting: str = "train.output_dir") -> None:
    """Make a folder and make sure that files can be made and listed in it.

    Raises:
        ConfigError: if not; `setting` is what the person should change.
    """
    try:
        os.makedirs(path, exist_ok=True)
        os.listdir(path)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"The output folder {path!r} cannot be used ({reason}): "
            f"set {setting} to a folder that you may read and write."
        ) from error


def pick_device(name: str) -> str:
    """Return the device, or "cpu" with a warning where it is CUDA and there is none.

    Raises:
        ConfigError: for a name that torch does not know, and for a device that does not go with the
            other processes of the run.
    """
    try:
        device = torch.device(name)
        if device.type == "cuda" and not torch.cuda.is_available():
            logger.warning("There is no CUDA device here: running on the CPU.")
            device = torch.device("cpu")
        torch.zeros(1, device=device).item()  # raises where there is none of that kind or number
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"train.device={name} is no device of this machine: set it to cuda or cpu."
        ) from error
    if comm.get_world_size() > 1:
        _check_shared_device(device)
    return str(device)


def _check_shared_device(device: torch.device) -> None:
    """Raise ConfigError for a device that a process cannot use beside the others."""
    if device.type == "cpu" and dist.get_backend() == "nccl":
        raise ConfigError(
            "train.device=cpu, but the processes talk by NCCL, which is for GPUs: add "
            "--dist-backend gloo."
        )
    if device.type == "cuda" and device.index is not None:
        raise ConfigError(
            f"train.device={device} would be the device of all processes: set it to cuda, and each "
            "takes its own."
        )
    if device.type == "cuda" and comm.get_local_rank() >= torch.cuda.device_count():
        raise ConfigError(
            f"There are more processes than the {torch.cuda.device_count()} GPUs of this machine: "
            "lower --num-gpus, or set train.device=cpu."
        )
