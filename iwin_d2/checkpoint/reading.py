"""Reading checkpoint files without executing anything in them, and saying why one is unreadable."""

import pickle
import re
import zipfile
from argparse import Namespace
from collections import OrderedDict
from typing import Any

import torch

from ..errors import CheckpointError

__all__ = ["UnreadableCheckpointError", "first_line", "read_checkpoint"]

# What a pickle of NumPy arrays consists of, by old and new names.
_HARMLESS = {
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
}


# Configs that training programs leave beside the weights, read as the plain values that they hold:
# yacs's (of the reference's classifiers), mmcv's, argparse's.
_CONFIGS = [
    (OrderedDict, "yacs.config.CfgNode"),
    (OrderedDict, "mmcv.utils.config.ConfigDict"),
    (Namespace, "argparse.Namespace"),
]


class UnreadableCheckpointError(CheckpointError):
    """A checkpoint file that is missing, cut off or damaged."""


def read_checkpoint(path: str) -> Any:
    """Read what torch.save wrote or, from a file that ends in .pkl, a pickle of NumPy arrays.

    Only tensors, arrays and plain values are read, and configs of yacs, mmcv and argparse as the
    plain values in them; a file that holds anything else is refused.

    Raises:
        UnreadableCheckpointError: the file cannot be read; its sentence says why.
    """
    try:
        if path.endswith(".pkl"):  # of Detectron2's model zoo
            with open(path, "rb") as file:
                return _ArrayUnpickler(file, encoding="latin1").load()
        _check_sums(path)
        with torch.serialization.safe_globals(_CONFIGS):
            return torch.load(path, map_location="cpu", weights_only=True)
    # A damaged file can make the readers fail in any way.
    except Exception as error:
        raise UnreadableCheckpointError(_explain(path, error)) from error


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it holds GLOBAL {module}.{name}")
        return super().find_class(module, name)


def _check_sums(path: str) -> None:
    """Raise BadZipFile if a file has not the check sums it was written with: torch does not look.

    Files that torch wrote before version 1.6 have none.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"the check sum of {damaged} in it is wrong")


def _explain(path: str, error: Exception) -> str:
    """The sentence about a file that could not be read."""
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused:
        return (
            f"{path} holds {refused[1]}: only tensors and plain values are read, for all else "
            "could run code; save the model's state dict alone."
        )
    if "maximum supported version" in str(error):
        return (
            f"{path} was written by a newer PyTorch than this one ({torch.__version__}): update "
            "PyTorch, or save the file anew with this version."
        )
    kind = _kind(path)
    if kind:
        return f"{path} is {kind}, not a checkpoint: fetch it anew, or correct the path."
    reason = first_line(error)
    if reason.startswith("Weights only load failed"):  # advises to trust the file
        reason = "torch.save does not write such files"
    return (
        f"{path} cannot be read as a checkpoint ({reason}): the file is cut off, damaged, or "
        "something else; fetch or save it anew."
    )


def _kind(path: str) -> str | None:
    """What a file is that is often taken for a checkpoint; None if not known."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError:
        return None
    if not head:
        return "empty (0 bytes)"
    if head.lstrip().startswith(b"<"):
        return "a web page"
    if path.endswith(".safetensors") or head[8:10] == b'{"':
        return "a safetensors file, which has to be saved by torch.save first"
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8")):
        return "an image"
    return None


def first_line(error: Exception) -> str:
    """The first sentence of an error, without its end."""
    lines = str(error).strip().splitlines()
    return lines[0].partition(". ")[0].rstrip(".")[:200] if lines else type(error).__name__
