"""The checkpointer of training runs."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..d2.checkpoint import DetectionCheckpointer
from ..d2.framework import USE_DETECTRON2
from ..errors import CheckpointError
from ..files import atomic_write
from .download import locate
from .options import LoadOptions
from .pretrained import load_weights
from .reading import UnreadableCheckpointError, first_line, read_checkpoint
from .report import some
from .target import Target, stamp
from .weights import PLACES, Weights, recognise

__all__ = ["Checkpointer"]

logger = logging.getLogger(__name__)

# Names of checkpoints made on the way, by the last iteration they hold.
_NUMBERED = re.compile(r"model_(\d{7,})\.pth")


# What loading raises where a file does not fit, or cannot be fetched.
_MISFITS = (
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
)


class Checkpointer(DetectionCheckpointer):
    """Writes whole files, and says in one sentence what is wrong with a file it reads.

    Takes the arguments of `DetectionCheckpointer`; files are exchangeable with its. Into a model
    with an Iwin backbone it loads as `load_pretrained` does, published files among them.

    Attributes:
        metadata: what every file says of the model beside its weights, such as its classes; plain
            values, or None.
    """

    metadata: dict[str, Any] | None = None

    _read: tuple[str, dict[str, Any]] = ("", {})  # a file that is read but not loaded yet
    _weights: Weights | None = None  # of the file that was read last
    _fill = False
    _options: LoadOptions | None = None

    def save(self, name: str, **kwargs: Any) -> None:
        """Save model, checkpointables and kwargs as `<save_dir>/<name>.pth`, whole or not at all.

        The file becomes the one to resume from.

        Raises:
            CheckpointError: if the file cannot be written; the file of that name stays as it was.
        """
        states = {key: item.state_dict() for key, item in self.checkpointables.items()}
        path = self._write(name, self.model, {**states, **kwargs})
        if path:
            with self._explain_failure(path):
                self.tag_last_checkpoint(os.path.basename(path))

    def save_weights(self, name: str, model: nn.Module, **kwargs: Any) -> None:
        """Save a model and kwargs alone, as a file to evaluate or to start from, not to resume.

        Raises:
            CheckpointError: as `save`.
        """
        self._write(name, model, kwargs)

    def _write(self, name: str, model: nn.Module, others: dict[str, Any]) -> str | None:
        """Write a file and return its path, None where this process writes none."""
        if not self.save_dir or not self.save_to_disk:
            return None
        data = {"model": model.state_dict(), **stamp(model), **others}
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
                f"The checkpoint {path} could not be written ({first_line(error)}): free some "
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
        found = ((_NUMBERED.fullmatch(path.name), path) for path in folder.iterdir())
        newest_first = sorted(((int(m[1]), path) for m, path in found if m), reverse=True)
        tag = folder / "last_checkpoint"
        named = tag.read_text(errors="replace").strip() if tag.is_file() else ""
        if not named:
            return [str(path) for _, path in newest_first]
        match = _NUMBERED.fullmatch(named)
        last = int(match[1]) if match else float("inf")
        written = tag.stat().st_mtime_ns
        since = [
            path
            for number, path in newest_first
            if number > last and path.stat().st_mtime_ns > written
        ]
        earlier = [path for number, path in newest_first if number < last]
        return [str(path) for path in [*since, folder / named, *earlier]]

    def resume_or_load(
        self,
        path: str,
        *,
        resume: bool = True,
        fill: bool = False,
        options: LoadOptions | None = None,
    ) -> dict[str, Any]:
        """Resume from the last checkpoint of save_dir that can be read, else load `path`'s weights.

        Args:
            path: as `load`.
            resume: whether to look into save_dir; what is resumed must fill the model and all
                checkpointables.
            fill: as `load`, for `path`.
            options: as `load`, for `path`.

        Returns:
            As `load`.

        Raises:
            CheckpointError: as `load`; with `resume`, if there are checkpoints but none is whole,
                or if the one to resume is not of such a training.
        """
        candidates = self._candidates() if resume else []
        if not candidates:
            return self.load(path, checkpointables=[], fill=fill, options=options)
        for candidate in candidates:
            try:
                # Before `load`: Detectron2's cannot be called again once it has failed.
                self._read = (candidate, self._load_file(candidate))
                self._check_resumable(*self._read)
            except UnreadableCheckpointError as error:
                logger.error("%s Trying the checkpoint before it.", error.sentence)
            else:
                return self.load(candidate, fill=True)
        raise CheckpointError(
            f"None of the checkpoints in {self.save_dir} can be read "
            f"({some(map(os.path.basename, candidates))}): leave out --resume to start anew, or "
            "give weights by train.init_checkpoint."
        )

    def _check_resumable(self, path: str, content: dict[str, Any]) -> None:
        lacking = [name for name in self.checkpointables if name not in content]
        if lacking:
            raise CheckpointError(
                f"{path} holds weights alone, no {' and '.join(lacking)}: it cannot be resumed; "
                f"start from it with train.init_checkpoint={path} and without --resume."
            )

    def load(
        self,
        path: str,
        checkpointables: list[str] | None = None,
        *,
        fill: bool = False,
        options: LoadOptions | None = None,
    ) -> dict[str, Any]:
        """Load a checkpoint; see `DetectionCheckpointer.load`.

        Args:
            path: file, address or published name; empty to load nothing.
            checkpointables: names of what to load beside the model; None for all.
            fill: whether to refuse weights that leave a part of the model as it was.
            options: what else may be done with them; without any, and without an Iwin backbone,
                what fits is loaded.

        Returns:
            What the file holds beside model and checkpointables.

        Raises:
            CheckpointError: if the file is missing, damaged or no checkpoint, if it does not fit
                the model (one without an Iwin backbone: if nothing fits or, with `fill`, not
                everything), or the checkpointables do not fit. The model is then as it was.
        """
        path = locate(path) if path else path
        self._path, self._fill, self._options = path, fill, options
        names = self.checkpointables if checkpointables is None else checkpointables
        try:
            with _restored_on_failure(self.model if names or fill else None):
                return super().load(path, checkpointables)
        except _MISFITS as error:
            # Others than that of load_state_dict are of the machine, or of another process.
            if isinstance(error, RuntimeError) and "state_dict" not in str(error):
                raise
            # From an optimizer or trainer that is not the one the file was saved with.
            reason = f"it lacks {error}" if isinstance(error, KeyError) else first_line(error)
            raise CheckpointError(
                f"{path} does not fit this training ({reason}): resume with the config it was "
                "saved with, or start anew from its weights with train.init_checkpoint."
            ) from error

    def _load_file(self, filename: str) -> dict[str, Any]:
        read, self._read = self._read, ("", {})
        if read[0] == filename:
            return read[1]
        if not os.path.isfile(filename):
            raise UnreadableCheckpointError(f"There is no checkpoint {filename}.")
        content = read_checkpoint(filename)
        bare = isinstance(content, dict) and not any(key in content for key in PLACES)
        if bare and filename.endswith(".pkl") and USE_DETECTRON2:
            content, bare = super()._load_file(filename), False  # knows Caffe2's names
        self._weights = recognise(content, filename)
        others = {} if bare else content
        return {**others, "model": self._weights.as_in_file}

    def _load_model(self, checkpoint: dict[str, Any]):
        options = self._options not in (None, LoadOptions())
        if self._weights is not None and (options or Target.of(self.model).prefixes):
            load_weights(self.model, self._weights, self._options, fill=self._fill)
            del checkpoint["model"]
            return None
        given = {key.removeprefix("module.") for key in checkpoint["model"]}
        wanted = list(self.model.state_dict())
        incompatible = super()._load_model(checkpoint)
        shapes = {
            name: f"{name} {list(found)} instead of {list(of_model)}"
            for name, found, of_model in incompatible.incorrect_shapes
        }
        loaded = len(given.intersection(wanted).difference(shapes))
        if loaded == 0:
            raise CheckpointError(
                f"Nothing in {self._path} fits the model: the file has {some(sorted(given))}, "
                f"the model {some(wanted)}"
                + (f"; of other shapes: {some(shapes.values())}" if shapes else "")
                + "; give a checkpoint of this model, or convert it first."
            )
        if self._fill:
            self._check_filled(set(incompatible.missing_keys), shapes)
        logger.info(
            "Loaded %d of the model's %d tensors from %s; missing: %d, unexpected: %d, of another "
            "shape: %d",
            *(loaded, len(wanted), self._path, len(set(wanted) - given)),
            *(len(given.difference(wanted)), len(shapes)),
        )
        return incompatible

    def _check_filled(self, missing: set[str], shapes: dict[str, str]) -> None:
        """Raise CheckpointError for tensors of the model that the file had not, or not so."""
        # Older files lack this counter, which only training reads.
        missing = {name for name in missing if not name.endswith("num_batches_tracked")}
        lacking = sorted(missing.union(shapes))
        if not lacking:
            return
        example = next(iter(shapes.values())) if shapes else lacking[0]
        count = f"{len(lacking)} of its {len(self.model.state_dict())} tensors"
        raise CheckpointError(
            f"The weights in {self._path} do not fill the model: {count} are "
            f"{'of other shapes' if shapes else 'not'} in the file, such as {example}; give the "
            "config, the overrides and the number of classes that it was trained with."
        )


@contextmanager
def _restored_on_failure(model: nn.Module | None) -> Iterator[None]:
    """Give a model the weights back that it had, if what is loaded with them fails."""
    if model is None:
        yield
        return
    state = model.state_dict()
    before = {name: value.clone() for name, value in state.items() if isinstance(value, Tensor)}
    try:
        yield
    except BaseException:
        model.load_state_dict(before, strict=False)
        raise
