"""The checkpointer of training runs."""

import logging
import os
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..d2.checkpoint import DetectionCheckpointer
from ..errors import CheckpointError
from ..files import atomic_write

__all__ = ["Checkpointer"]

logger = logging.getLogger(__name__)

# What torch.load raises for files that are cut off, damaged or something else altogether.
_UNREADABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    AttributeError,
    IndexError,
    TypeError,
)


# Names of checkpoints made on the way, by the last iteration they hold.
_NUMBERED = re.compile(r"model_(\d{7,})\.pth")


class UnreadableCheckpointError(CheckpointError):
    """A checkpoint file that is missing, cut off or damaged."""


class Checkpointer(DetectionCheckpointer):
    """Writes whole files, and says in one sentence what is wrong with a file it reads.

    Takes the arguments of `DetectionCheckpointer`; files are exchangeable with its.

    Attributes:
        metadata: what every file says of the model beside its weights, such as its classes; plain
            values, or None.
    """

    metadata: dict[str, Any] | None = None

    _read: tuple[str, dict[str, Any]] = ("", {})  # a file that is read but not loaded yet

    def save(self, name: str, **kwargs: Any) -> None:
        """Save model, checkpointables and kwargs as `<save_dir>/<name>.pth`, whole or not at all.

        The file becomes the one to resume from.

        Raises:
            CheckpointError: if the file cannot be written; the file of that name stays as it was.
        """
        states = {key: item.state_dict() for key, item in self.checkpointables.items()}
        path = self._write(name, {"model": self.model.state_dict(), **states, **kwargs})
        if path:
            with self._explain_failure(path):
                self.tag_last_checkpoint(os.path.basename(path))

    def save_weights(self, name: str, model: nn.Module, **kwargs: Any) -> None:
        """Save a model and kwargs alone, as a file to evaluate or to start from, not to resume.

        Raises:
            CheckpointError: as `save`.
        """
        self._write(name, {"model": model.state_dict(), **kwargs})

    def _write(self, name: str, data: dict[str, Any]) -> str | None:
        """Write a file and return its path, None where this process writes none."""
        if not self.save_dir or not self.save_to_disk:
            return None
        if self.metadata is not None:
            data = {**data, "metadata": self.metadata}
        path = os.path.join(self.save_dir, f"{name}.pth")
        logger.info("Saving checkpoint to %s", path)
        with self._explain_failure(path), atomic_write(path) as file:
            torch.save(data, file)
        return path

    @contextmanager
    def _explain_failure(self, path: str) -> Iterator[None]:
        try:
            yield
        # torch.save turns a full disk into a RuntimeError.
        except (OSError, RuntimeError) as error:
            before = ""
            if self.has_checkpoint():
                before = f" ({self.get_checkpoint_file()} is the last whole one)"
            raise CheckpointError(
                f"The checkpoint {path} could not be written ({_first_line(error)}): free some "
                "space or set train.output_dir to another folder, then go on with "
                f"--resume{before}."
            ) from error

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Note the file to resume from."""
        with atomic_write(os.path.join(self.save_dir, "last_checkpoint"), "w") as file:
            file.write(last_filename_basename)

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return bool(self._candidates())

    def get_checkpoint_file(self) -> str:
        """The checkpoint to resume from; an empty string where there is none."""
        return next(iter(self._candidates()), "")

    def _candidates(self) -> list[str]:
        """The files to resume from, the first one first, the others should it be damaged.

        That is what `last_checkpoint` names; before it what was written since (a run can be killed
        between writing a checkpoint and naming it); behind it the earlier ones. What is younger by
        number but older by date is of another training in the same folder.
        """
        folder = Path(self.save_dir) if self.save_dir else None
        if folder is None or not folder.is_dir():
            return []
        numbered = {int(m[1]): p for p in folder.iterdir() if (m := _NUMBERED.fullmatch(p.name))}
        files = [numbered[number] for number in sorted(numbered, reverse=True)]
        tag = folder / "last_checkpoint"
        named = tag.read_text(errors="replace").strip() if tag.is_file() else ""
        if not named:
            return [str(path) for path in files]
        match = _NUMBERED.fullmatch(named)
        last = int(match[1]) if match else float("inf")
        written = tag.stat().st_mtime_ns
        since = [
            path
            for number, path in sorted(numbered.items(), reverse=True)
            if number > last and path.stat().st_mtime_ns > written
        ]
        earlier = [path for number, path in sorted(numbered.items(), reverse=True) if number < last]
        return [str(path) for path in [*since, folder / named, *earlier]]

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resume from the last checkpoint of save_dir that can be read, else load `path`'s weights.

        Returns:
            As `load`.

        Raises:
            CheckpointError: as `load`; with `resume`, if there are checkpoints but none is whole.
        """
        candidates = self._candidates() if resume else []
        if not candidates:
            return self.load(path, checkpointables=[])
        for candidate in candidates:
            try:
                # Before `load`: Detectron2's cannot be called again once it has failed.
                self._read = (candidate, self._load_file(candidate))
            except UnreadableCheckpointError as error:
                logger.error("%s Trying the checkpoint before it.", error.sentence)
            else:
                return self.load(candidate)
        raise CheckpointError(
            f"None of the checkpoints in {self.save_dir} can be read "
            f"({_some(map(os.path.basename, candidates))}): leave out --resume to start anew, or "
            "give weights by train.init_checkpoint."
        )

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a checkpoint; see `DetectionCheckpointer.load`.

        Args:
            path: file or address; empty to load nothing.
            checkpointables: names of what to load beside the model; None for all.

        Returns:
            What the file holds beside model and checkpointables.

        Raises:
            CheckpointError: if the file is missing, damaged or no checkpoint, or if nothing in it
                fits the model.
        """
        if path and "://" not in path and not os.path.isfile(path):
            raise CheckpointError(f"There is no checkpoint {path}: correct the path.")
        self._path = path
        try:
            return super().load(path, checkpointables)
        except (ValueError, KeyError) as error:
            # From an optimizer or trainer that is not the one the file was saved with.
            raise CheckpointError(
                f"{path} does not fit this training ({error}): resume with the config it was "
                "saved with, or start anew from its weights with train.init_checkpoint."
            ) from error

    def _load_file(self, filename: str) -> dict[str, Any]:
        read, self._read = self._read, ("", {})
        if read[0] == filename:
            return read[1]
        if not os.path.isfile(filename):
            raise UnreadableCheckpointError(f"There is no checkpoint {filename}.")
        try:
            if filename.endswith(".pkl"):  # Detectron2's model zoo
                checkpoint = super()._load_file(filename)
            else:
                _check_sums(filename)
                checkpoint = torch.load(filename, map_location="cpu", weights_only=True)
        except _UNREADABLE as error:
            raise UnreadableCheckpointError(
                f"{filename} cannot be read as a checkpoint ({_first_line(error)}): the file is "
                "cut off, damaged, or something else; fetch or save it anew."
            ) from error
        if isinstance(checkpoint, dict) and "model" not in checkpoint:
            checkpoint = {"model": checkpoint}
        model = checkpoint.get("model") if isinstance(checkpoint, dict) else None
        if not isinstance(model, dict) or not any(_is_array(value) for value in model.values()):
            raise CheckpointError(
                f"{filename} holds no model weights: give a .pth file with a state dict, bare or "
                "under the key 'model'."
            )
        checkpoint["model"] = {key: value for key, value in model.items() if _is_array(value)}
        return checkpoint

    def _load_model(self, checkpoint: dict[str, Any]):
        given = {key.removeprefix("module.") for key in checkpoint["model"]}
        wanted = list(self.model.state_dict())
        incompatible = super()._load_model(checkpoint)
        shapes = [name for name, *_ in incompatible.incorrect_shapes]
        loaded = len(given.intersection(wanted).difference(shapes))
        if loaded == 0:
            raise CheckpointError(
                f"Nothing in {self._path} fits the model: the file has {_some(sorted(given))}, "
                f"the model {_some(wanted)}"
                + (f"; of other shapes: {_some(shapes)}" if shapes else "")
                + "; give a checkpoint of this model, or convert it first."
            )
        logger.info(
            "Loaded %d of the model's %d tensors from %s; missing: %d, unexpected: %d, of another "
            "shape: %d",
            *(loaded, len(wanted), self._path, len(set(wanted) - given)),
            *(len(given.difference(wanted)), len(shapes)),
        )
        return incompatible


def _check_sums(filename: str) -> None:
    """Raise BadZipFile if a file has not the check sums it was written with: torch does not look.

    Files that torch wrote before version 1.6 have none.
    """
    if zipfile.is_zipfile(filename):
        with zipfile.ZipFile(filename) as file:
            damaged = file.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"the check sum of {damaged} in it is wrong")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else repr(error)


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape")


def _some(names: Iterable[str], count: int = 3) -> str:
    """The first few names, for a message."""
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
