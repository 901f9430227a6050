"""The videos of a list as records that a million of take little memory, also in workers."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from os import PathLike

import numpy as np
import torch

from ...errors import DataError
from ..class_file import class_names
from ..problems import Problem, raise_on_problems
from .list_file import ListFile, read_list_file

__all__ = ["VideoList", "list_problems", "load_video_list", "num_video_classes", "video_classes"]

_LOOKED_FOR = 16  # files, to see whether the folder is the right one


class VideoList(Sequence):
    """Records of videos: {"file_name", "label", "image_id"}, made when they are asked for.

    `image_id` is the number in the list. What is stored is the text of the list and three numbers
    for each line, as tensors: workers share them, whether they are forks or not.

    Args:
        lines: the list.
        root: the folder that relative paths start from.
        class_names: the names of the classes.
    """

    def __init__(self, lines: ListFile, root: str, class_names: Sequence[str]):
        self.root = root
        self.class_names = list(class_names)
        self._text = torch.from_numpy(lines.text)
        self._starts = torch.from_numpy(np.ascontiguousarray(lines.starts))
        self._sizes = torch.from_numpy((lines.ends - lines.starts).astype(np.int32))
        self._labels = torch.from_numpy(lines.labels.astype(np.int32))

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict:
        index = range(len(self))[index]
        start = int(self._starts[index])
        path = self._text[start : start + int(self._sizes[index])].numpy().tobytes()
        return {
            "file_name": os.path.join(self.root, os.fsdecode(path)),
            "label": int(self._labels[index]),
            "image_id": index,
        }

    @property
    def labels(self) -> np.ndarray:
        """The labels of all records: int32 [n]."""
        return self._labels.numpy()


def load_video_list(
    list_file: str | PathLike,
    root: str | PathLike | None = None,
    classes: str | PathLike | Sequence[str] | None = None,
    num_classes: int | None = None,
) -> VideoList:
    """Load a list of videos: Kinetics' `path label` lines, or csv; see `read_list_file`.

    A path is a file's, or that of a folder with a picture for each frame.

    Args:
        list_file: the list.
        root: the folder that its paths start from; None: the folder that the list lies in.
        classes: the names of the classes, or a text file with one a line; labels may then be names
            in csv. None: the names are the numbers.
        num_classes: their number, if it is not to follow from names or labels.

    Raises:
        DataError: the list cannot be read or is empty; a line has no label or no path, a label is
            out of range, separators are mixed; or no video is where the list says. The first is
            said in full, with the number of the others.
    """
    lines, names = _read(list_file, classes, num_classes)
    files = f"{list_file} {root or ''}".strip()
    raise_on_problems(lines.problems(len(names)), files)
    videos = VideoList(lines, _root_of(list_file, root), names)
    _check_root(videos, list_file)
    return videos


def video_classes(
    list_file: str | PathLike,
    classes: str | PathLike | Sequence[str] | None = None,
    num_classes: int | None = None,
) -> list[str]:
    """The names of the classes of a list; without `classes` they are its numbers up to the highest.

    Raises:
        DataError: as `load_video_list`, the videos themselves aside.
    """
    lines, names = _read(list_file, classes, num_classes)
    raise_on_problems(lines.problems(len(names)), str(list_file))
    return names


def num_video_classes(
    list_file: str | PathLike,
    classes: str | PathLike | Sequence[str] | None = None,
    num_classes: int | None = None,
) -> int:
    """How many classes a list has, for `num_classes` of a model; see `video_classes`."""
    return len(video_classes(list_file, classes, num_classes))


def list_problems(
    list_file: str | PathLike,
    root: str | PathLike | None = None,
    classes: str | PathLike | Sequence[str] | None = None,
    num_classes: int | None = None,
) -> tuple[VideoList, np.ndarray, Iterator[Problem]]:
    """The videos of a list, lines without path or label left out, and what is wrong with its lines.

    The arguments are those of `load_video_list`.

    Returns:
        the videos; the numbers of their lines, from 1; the problems.

    Raises:
        DataError: list or class file cannot be read.
    """
    lines, names = _read(list_file, classes, num_classes)
    good = lines.usable
    kept = replace(
        lines,
        **{name: getattr(lines, name)[good] for name in ("starts", "ends", "labels", "lines")},
    )
    videos = VideoList(kept, _root_of(list_file, root), names)
    return videos, kept.lines, lines.problems(len(names))


def _read(list_file, classes, num_classes) -> tuple[ListFile, list[str]]:
    """The lines of a list and the names of its classes."""
    names: list[str] | None = None
    if classes is not None:
        is_file = isinstance(classes, (str, PathLike))
        names = class_names(classes) if is_file else [str(name) for name in classes]
        if num_classes not in (None, len(names)):
            raise DataError(
                f"There are {len(names)} names of classes, but num_classes={num_classes}: correct "
                "one of them, or leave num_classes out."
            )
    lines = read_list_file(list_file, lambda: names or ())
    if names is None:
        highest = int(lines.labels.max(initial=-1))
        names = [str(number) for number in range(num_classes or highest + 1)]
    return lines, names


def _root_of(list_file, root) -> str:
    return os.path.dirname(os.fspath(list_file)) if root is None else os.fspath(root)


def _check_root(videos: VideoList, list_file) -> None:
    """Raise if none of some videos is there: missing ones alone are the loader's to deal with."""
    step = max(1, len(videos) // _LOOKED_FOR)
    for index in range(0, len(videos), step):
        if os.path.exists(videos[index]["file_name"]):
            return
    raise DataError(
        f"the videos of {list_file} are not there, such as {videos[0]['file_name']}: set root to "
        f"the folder that its paths start from (relative paths start at {os.getcwd()})."
    )
