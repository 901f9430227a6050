"""The check of class folders: everything wrong with their images, in one pass."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from PIL import Image

from ...errors import DataError
from ..check_report import MAX_CLASSES, image_sizes
from ..image_check import IMAGE_SUFFIXES, in_threads, inspect_image
from ..problems import Problem
from .image_folder import image_folder_classes

__all__ = ["ClassFolderCheck", "describe_class_folder_summary"]

_DIGEST = 8  # bytes: two of a million images agree by chance once in ten million sets


class _Picture(NamedTuple):
    """A file in a class folder."""

    path: str
    part: int  # 0 in the training's folder, 1 in the test's
    label: str


@dataclass
class ClassFolderCheck:
    """Looks through folders of images, one for each class, and counts what they hold on the way.

    Attributes:
        train: holds a folder for each class.
        test: the same of other images, whose classes must be among those of `train`; None for none.
        summary: for json: images, test_images, image_sizes (smallest, median and largest [width,
            height] of those that were read) and classes, a list of {name, images, test_images};
            complete once `problems` has come to its end.
    """

    train: str
    test: str | None = None
    summary: dict = field(default_factory=dict, init=False)

    def problems(
        self,
        decode: bool = True,
        workers: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Problem]:
        """Yield everything that is wrong.

        Args:
            decode: whether to read all images, or only look at names.
            workers: how many threads read.
            progress: is told the number of images read and that of all, from time to time.
        """
        roots = [root for root in (self.train, self.test) if root is not None]
        classes: list[list[str]] = []
        for root in roots:
            try:
                classes.append(image_folder_classes(root))
            except DataError as error:
                yield Problem("file", str(error))
                classes.append([])
        yield from self._other_classes(classes)
        pictures: list[_Picture] = []
        for part, (root, names) in enumerate(zip(roots, classes)):
            yield from _beside(root) if names else ()
            for name in names:
                yield from _list_class(root, part, name, pictures)
        sizes: list[dict] = []
        if decode:
            yield from self._inspect(pictures, workers, progress, sizes)
        self.summary = _summarise(classes, pictures, sizes)

    def _other_classes(self, classes: list[list[str]]) -> Iterator[Problem]:
        """Classes of the test that the training has not, and the other way round."""
        if len(classes) < 2 or not all(classes):
            return
        train, test = classes
        for name in sorted(set(test) - set(train)):
            similar = next((known for known in train if known.lower() == name.lower()), None)
            hint = f": {similar} differs in upper and lower case" if similar else ""
            text = f"{self.test} has the class {name}, which {self.train} has not{hint}."
            yield Problem("classes", text)
        for name in sorted(set(train) - set(test)):
            text = f"{self.test} has no folder {name}: this class is not evaluated."
            yield Problem("class-absent", text, "warning")

    def _inspect(
        self,
        pictures: list[_Picture],
        workers: int,
        progress: Callable[[int, int], None] | None,
        sizes: list[dict],
    ) -> Iterator[Problem]:
        """What is wrong with files, and images that are there twice."""
        seen: dict[bytes, _Picture] = {}
        for picture, (findings, size, digest) in in_threads(_look, pictures, workers, progress):
            for kind, severity, text in findings:
                yield Problem(kind, f"{text}.", severity)
            if size is None:
                continue
            sizes.append({"width": size[0], "height": size[1]})
            first = seen.setdefault(digest, picture)
            if first.part != picture.part:
                text = f"{picture.path} is the same file as {first.path}, which is trained on."
                yield Problem("duplicate-image", text, "note")
            elif first.label != picture.label:
                text = f"{picture.path} is the same file as {first.path}, of another class."
                yield Problem("duplicate-image", text, "note")


def _beside(root: str) -> Iterator[Problem]:
    """Images that lie in the root itself, of no class."""
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if entry.is_file())
    for name in names:
        if _is_image(name):
            text = f"{os.path.join(root, name)} lies beside the class folders: it is not used."
            yield Problem("not-used", text, "note")


def _list_class(root: str, part: int, name: str, pictures: list[_Picture]) -> Iterator[Problem]:
    """Add the images of a class to `pictures`."""
    folder, before = os.path.join(root, name), len(pictures)
    unreadable: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=unreadable.append, followlinks=True):
        folders.sort()
        for file in sorted(files):
            path = os.path.join(place, file)
            if _is_image(file):
                pictures.append(_Picture(path, part, name))
            elif not file.startswith("."):
                text = f"{path} is no image by its name: it is not used."
                yield Problem("not-used", text, "note")
    for error in unreadable:
        text = f"{error.filename} cannot be read ({error.strerror}): correct its permissions."
        yield Problem("file", text)
    if len(pictures) == before and not unreadable:
        endings = ", ".join(sorted(IMAGE_SUFFIXES))
        text = f"{folder} has no image ({endings}): remove it, or put its images there."
        yield Problem("class-empty", text)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")


def _look(picture: _Picture) -> tuple[list, tuple[int, int] | None, bytes]:
    """What is wrong with an image, its size, None where it cannot be read, and its digest."""
    findings = inspect_image(picture.path)
    if picture.path.lower().endswith(".png"):  # the upper 8 of 16 bits are taken: nothing is lost
        findings = [found for found in findings if found[0] != "image-depth"]
    if any(severity == "error" for _, severity, _ in findings):
        return findings, None, b""
    with Image.open(picture.path) as image:
        size = image.size
    with open(picture.path, "rb") as file:
        digest = hashlib.blake2b(file.read(), digest_size=_DIGEST).digest()
    return findings, size, digest


def _summarise(classes: list[list[str]], pictures: list[_Picture], sizes: list[dict]) -> dict:
    counts = Counter((picture.part, picture.label) for picture in pictures)
    names = sorted({name for part in classes for name in part})
    listed = [
        {"name": name, "images": counts[0, name], "test_images": counts[1, name]} for name in names
    ]
    return {
        "images": sum(picture.part == 0 for picture in pictures),
        "test_images": sum(picture.part == 1 for picture in pictures),
        "image_sizes": image_sizes(sizes),
        "classes": listed,
    }


def describe_class_folder_summary(summary: dict, all_classes: bool = False) -> list[str]:
    """The lines of a report on `ClassFolderCheck.summary`."""
    test = f", {summary['test_images']:,} to test" if summary["test_images"] else ""
    lines = [f"{summary['images']:,} images{test}"]
    sizes = [f"{name} {w}x{h}" for name, (w, h) in summary["image_sizes"].items()]
    if sizes:
        lines.append(f"image sizes: {', '.join(sizes)}")
    classes = summary["classes"]
    shown = classes if all_classes else classes[:MAX_CLASSES]
    width = max([5, *(min(len(c["name"]), 40) for c in shown)])
    lines += [f"{len(classes):,} classes:", f"  {'class':{width}}   images     test"]
    lines += [
        f"  {c['name'][:40]:{width}}  {c['images']:>7,}  {c['test_images']:>7,}" for c in shown
    ]
    if len(classes) > len(shown):
        lines.append(f"  ... and {len(classes) - len(shown):,} more (--all shows them)")
    return lines
