"""The files of a run of predictions: what is read, and what is written whole or not at all."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from ..errors import ConfigError, DataError
from ..files import atomic_write
from .video import VIDEO_ENDINGS, check_video_output

__all__ = [
    "ResultsFile",
    "check_no_input_overwritten",
    "find_images",
    "make_folder",
    "open_results",
    "picture_names",
    "sentence_if_not_written",
    "video_output",
    "write_labels",
    "write_picture",
]


class ResultsFile:
    """A json list that grows on the disk, not in memory; opened by `open_results`.

    Attributes:
        count: how many records it has.
    """

    def __init__(self, file: IO | None, path: Path | None):
        self._file = file
        self._path = path
        self.count = 0

    def add(self, records: list[dict]) -> None:
        """Append records.

        Raises:
            DataError: they cannot be written.
        """
        for record in records:
            self._write(("[\n" if self.count == 0 else ",\n") + json.dumps(record))
            self.count += 1

    def finish(self) -> None:
        """End the list."""
        self._write("[]\n" if self.count == 0 else "\n]\n")

    def _write(self, text: str) -> None:
        if self._file is not None:
            with sentence_if_not_written(self._path):
                self._file.write(text)


@contextmanager
def open_results(path: Path | None) -> Iterator[ResultsFile]:
    """A json file of records, which appears when the block ends without an error; None for none.

    Raises:
        DataError: it cannot be written.
    """
    if path is None:
        yield ResultsFile(None, None)
        return
    with sentence_if_not_written(path), atomic_write(path, "w") as file:
        results = ResultsFile(file, path)
        yield results
        results.finish()


def write_picture(image: np.ndarray, path: Path) -> None:
    """Write an image, RGB uint8 [H, W, 3], as PNG.

    Raises:
        DataError: it cannot be written.
    """
    with sentence_if_not_written(path), atomic_write(path) as file:
        # Packed a few percent less tightly than by default, in a third of the time.
        Image.fromarray(image).save(file, format="PNG", compress_level=3)


def write_labels(labels: np.ndarray, path: Path, num_classes: int = 0) -> None:
    """Write class numbers [H, W] as a PNG of one channel, without a palette.

    Of 8 bits, or of 16 where there are more than 255 classes: 255 often means no class.

    Args:
        labels: none negative.
        path: the file.
        num_classes: how many there are, if that is known.

    Raises:
        DataError: it cannot be written.
    """
    large = num_classes > 255 or labels.max(initial=0) > 254
    with sentence_if_not_written(path), atomic_write(path) as file:
        Image.fromarray(labels.astype(np.uint16 if large else np.uint8)).save(file, format="PNG")


def make_folder(path: Path) -> None:
    """Make a folder in an existing one.

    Raises:
        DataError: it cannot be made.
    """
    with sentence_if_not_written(path):
        path.mkdir(exist_ok=True)


@contextmanager
def sentence_if_not_written(path: Path) -> Iterator[None]:
    """Within the block, turn errors of writing a file into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror or error}): free some space, or set "
            "--output to another place."
        ) from error


def video_output(source: Path, output: Path) -> Path:
    """The file to write for a video: `output`, or `<stem>.mp4` in it where it names a folder.

    Raises:
        ConfigError: a file of another kind, or the source itself.
    """
    if output.is_dir() or not output.suffix:
        output = output / f"{source.stem}.mp4"
    check_video_output(output)
    if output.resolve() == source.resolve():
        raise ConfigError(f"{output} is the input itself: set --output to another file.")
    return output


def find_images(inputs: Iterable[str]) -> list[Path]:
    """The files among the inputs and the image files in the folders among them, each once.

    Raises:
        DataError: for an input that does not exist or is a video, and for a folder without images.
    """
    Image.init()
    endings = set(Image.EXTENSION) - VIDEO_ENDINGS
    paths: dict[Path, Path] = {}  # by resolved path
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in endings and p.is_file())
            if not found:
                raise DataError(f"There is no image file in the folder {path}: correct --input.")
        elif not path.exists():
            raise DataError(f"There is no file or folder {path}: correct --input.")
        elif path.suffix.lower() in VIDEO_ENDINGS:
            raise DataError(f"{path} looks like a video: give it with --video-input {path}.")
        else:
            found = [path]
        for item in found:
            paths.setdefault(item.resolve(), item)
    return list(paths.values())


def picture_names(paths: Sequence[Path]) -> list[str]:
    """A file name `<stem>.png` for each path, different for all, also where case makes none."""
    taken: set[str] = set()
    names = []
    for path in paths:
        name, number = path.stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{path.stem}_{number}"
        taken.add(name.lower())
        names.append(f"{name}.png")
    return names


def check_no_input_overwritten(paths: Sequence[Path], output: Path) -> None:
    """Raise ConfigError if a picture to be drawn would replace one of the inputs."""
    inputs = {path.resolve() for path in paths}
    for name in picture_names(paths):
        if (output / name).resolve() in inputs:
            raise ConfigError(
                f"Drawing into {output} would overwrite the input {output / name}: "
                "set --output to another folder."
            )
