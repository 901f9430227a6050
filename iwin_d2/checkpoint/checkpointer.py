"""The checkpointer of training runs."""

import logging
import os
import pickle
import zipfile
from collections.abc import Iterable
from typing import Any

import torch

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


class Checkpointer(DetectionCheckpointer):
    """Writes whole files, and says in one sentence what is wrong with a file it reads.

    Takes the arguments of `DetectionCheckpointer`; files are exchangeable with its.
    """

    def save(self, name: str, **kwargs: Any) -> None:
        """Save model, checkpointables and kwargs as `<save_dir>/<name>.pth`, whole or not at all.

        Raises:
            CheckpointError: if the file cannot be written; the file of that name stays as it was.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        data.update({key: item.state_dict() for key, item in self.checkpointables.items()})
        data.update(kwargs)
        path = os.path.join(self.save_dir, f"{name}.pth")
        logger.info("Saving checkpoint to %s", path)
        try:
            with atomic_write(path) as file:
                torch.save(data, file)
            self.tag_last_checkpoint(os.path.basename(path))
        # torch.save turns a full disk into a RuntimeError.
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"The checkpoint {path} could not be written ({error}): free some space or set "
                "train.output_dir to another folder, then go on with --resume."
            ) from error

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Note the file to resume from."""
        with atomic_write(os.path.join(self.save_dir, "last_checkpoint"), "w") as file:
            file.write(last_filename_basename)

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
            raise CheckpointError(f"There is no checkpoint {path}: {self._advice(path)}")
        self._path = path
        try:
            return super().load(path, checkpointables)
        except (ValueError, KeyError) as error:
            # From an optimizer or trainer that is not the one the file was saved with.
            raise CheckpointError(
                f"{path} does not fit this training ({error}): resume with the config it was "
                "saved with, or start anew from its weights with train.init_checkpoint."
            ) from error

    def _advice(self, path: str) -> str:
        if self.save_dir and self.has_checkpoint() and path == self.get_checkpoint_file():
            tag = os.path.join(self.save_dir, "last_checkpoint")
            return (
                f"{tag} names it; write the name of another .pth file of that folder into it, "
                "or leave out --resume."
            )
        return "correct the path."

    def _load_file(self, filename: str) -> dict[str, Any]:
        try:
            if filename.endswith(".pkl"):  # Detectron2's model zoo
                checkpoint = super()._load_file(filename)
            else:
                checkpoint = torch.load(filename, map_location="cpu", weights_only=True)
        except _UNREADABLE as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise CheckpointError(
                f"{filename} cannot be read as a checkpoint ({reason[:200]}): the file is cut off, "
                "damaged, or something else; fetch or save it anew."
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


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape")


def _some(names: Iterable[str], count: int = 3) -> str:
    """The first few names, for a message."""
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
