"""Folders of pictures, one for each frame, as a source of frames beside video files."""

import os
import re
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional

from ...errors import DataError
from .decode import VideoFile

__all__ = ["FrameFolder", "open_video"]

_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp"))
_NUMBER = re.compile(r"(\d+)\.[A-Za-z]+$")
_PLACEHOLDER = re.compile(r"\{:0?\d*d?\}|%0?\d*d")


class FrameFolder:
    """The frames of a folder that holds a picture for each: a `VideoFile`'s interface.

    Args:
        path: the folder.
        pattern: how the pictures are called, with their number in braces, as in img_{:05d}.jpg or
            flow_x_{:05d}.jpg; None: all pictures whose name ends in a number, such as
            img_00001.jpg, have to belong to one row.
        rate: pictures a second, for `times` and `index_at`.

    Raises:
        DataError: there is no such folder, it has no pictures, several rows of them, or gaps.
    """

    def __init__(self, path: str | PathLike, pattern: str | None = None, rate: float = 25):
        self.path = Path(path)
        self._rate = rate
        self._names = self._find(pattern)

    def __enter__(self) -> "FrameFolder":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._names)

    @property
    def times(self) -> np.ndarray:
        """When frames are shown: float64 [n], seconds since the first one."""
        return np.arange(len(self)) / self._rate

    def index_at(self, times: float | Sequence[float]) -> np.ndarray:
        """The frames on screen at some times, seconds since the first frame; the ends are held."""
        found = np.floor(np.asarray(times, dtype=float) * self._rate + 1e-6).astype(np.int64)
        return found.clip(0, len(self) - 1)

    def read(
        self, indices: Sequence[int], resize: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Read pictures; arguments, result and errors are those of `VideoFile.read`."""
        numbers, places = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        if not len(numbers) or numbers[0] < 0 or numbers[-1] >= len(self):
            raise IndexError(f"{self.path} has frames 0 to {len(self) - 1}, not {list(indices)}")
        frames = []
        for number in numbers:
            frame = self._picture(self.path / self._names[number])
            frame = frame if resize is None else resize(frame)
            if frames and frame.shape != frames[0].shape:
                frame = functional.resize(frame, list(frames[0].shape[1:]))
            frames.append(frame)
        return torch.stack([frames[place] for place in places])

    def close(self) -> None:
        """Do nothing: pictures are closed once they are read."""

    def _picture(self, path: Path) -> Tensor:
        try:
            return decode_image(str(path), ImageReadMode.RGB, apply_exif_orientation=True)
        except RuntimeError as error:
            empty = path.is_file() and not path.stat().st_size
            reason = "it is empty" if empty else str(error).splitlines()[0]
            raise DataError(
                f"{path} cannot be read as a picture ({reason}): it is cut off, damaged or "
                "something else; extract the frames anew."
            ) from error

    def _find(self, pattern: str | None) -> list[str]:
        """The pictures' names in the order of their numbers."""
        try:
            names = os.listdir(self.path)
        except OSError as error:
            raise DataError(
                f"the folder of frames {self.path} cannot be read ({error.strerror}): correct the "
                "path."
            ) from error
        numbered: dict[int, str] = {}
        wanted = _NUMBER if pattern is None else _as_expression(pattern)
        for name in sorted(names):
            found = wanted.search(name) if _is_picture(name) else None
            if found is None:
                continue
            if int(found[1]) in numbered:
                raise DataError(
                    f"{self.path} has two pictures for frame {int(found[1])} "
                    f"({numbered[int(found[1])]}, {name}): say with pattern= which row to take."
                )
            numbered[int(found[1])] = name
        return self._without_gaps(numbered, pattern)

    def _without_gaps(self, numbered: dict[int, str], pattern: str | None) -> list[str]:
        if not numbered:
            named = f" called like {pattern}" if pattern else " whose name ends in a number"
            raise DataError(f"{self.path} has no pictures{named}: correct the path or the pattern.")
        first, last = min(numbered), max(numbered)
        if last - first + 1 != len(numbered):
            gap = next(number for number in range(first, last) if number not in numbered)
            raise DataError(
                f"{self.path} has pictures {first} to {last}, but none for frame {gap}: extract "
                "the frames anew."
            )
        return [numbered[number] for number in sorted(numbered)]


def open_video(path: str | PathLike, num_threads: int = 1) -> VideoFile | FrameFolder:
    """Open a video file, or a folder of frames.

    Raises:
        DataError: as `VideoFile` and `FrameFolder`.
    """
    return FrameFolder(path) if os.path.isdir(path) else VideoFile(path, num_threads)


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _SUFFIXES


def _as_expression(pattern: str) -> re.Pattern:
    before, *after = _PLACEHOLDER.split(pattern)
    if len(after) != 1:
        raise DataError(
            f"pattern={pattern} does not say where the number stands: write it as in "
            "img_{:05d}.jpg."
        )
    return re.compile(rf"^{re.escape(before)}(\d+){re.escape(after[0])}$")
