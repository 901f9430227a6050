"""What can be wrong with a data set: the kinds of findings, and one finding."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..errors import DataError

__all__ = ["KINDS", "Problem", "raise_on_problems", "warnings_unless_fatal"]

# Every kind of finding, in the order of a report; docs/datasets.md has them with their severities.
KINDS = {
    "file": "a file of annotations, classes or names cannot be used",
    "structure": "not COCO, or a record without what it needs",
    "empty": "nothing to learn from",
    "classes": "other classes than the training set",
    "duplicate-id": "an id that is used twice",
    "category": "categories that are unknown or ambiguous",
    "image-id": "annotations of an image that is not listed",
    "box": "boxes that are not four finite numbers, or of negative size",
    "box-empty": "boxes without area",
    "box-outside": "boxes that reach out of their image",
    "polygon": "polygons that are none",
    "polygon-outside": "polygons that reach out of their image",
    "rle": "run-length masks of the wrong size, or damaged",
    "mask-missing": "objects without a mask among objects with masks",
    "area": "annotations without a usable area",
    "iscrowd": "annotations without a usable iscrowd",
    "ignore": "annotations marked 'ignore'",
    "zero-id": "annotations of id 0",
    "class-empty": "class folders without an image",
    "image-missing": "image files that do not exist",
    "image-damaged": "image files that are truncated, empty or no images",
    "image-size": "images of another size than the json says",
    "image-orientation": "images whose EXIF orientation the json does not know",
    "image-depth": "images of more than 8 bits a channel",
    "image-frames": "animated images",
    "image-colours": "images whose colours change when they are read as RGB",
    "line": "lines of a list that are not a path and a label",
    "separator": "lists that mix separators",
    "video-missing": "videos that do not exist",
    "video-damaged": "videos that cannot be read, or not to their end",
    "duplicate-file": "files that are listed twice",
    "label-missing": "images without a label image",
    "label-unused": "label images without an image",
    "duplicate-name": "images or labels that differ in the suffix alone, or are listed twice",
    "label-damaged": "label files that are truncated, empty or no images",
    "label-format": "label files of a format that is not for labels",
    "label-colours": "label files with colours instead of class numbers",
    "label-palette": "label files with a palette",
    "label-size": "labels of another size than their image",
    "label-orientation": "labels whose image, or which themselves, have an EXIF orientation",
    "label-values": "labels out of range",
    "label-empty": "images with ignored pixels only",
    "class-absent": "classes that no label or folder has",
    "image-small": "images smaller than the crop",
    "file-case": "file names that differ in upper and lower case only",
    "duplicate-image": "the same image in two classes, or to train and to test",
    "unlisted": "image files that the json does not list",
    "not-used": "files beside the images of classes",
}


@dataclass(frozen=True)
class Problem:
    """One finding: what is wrong in which record of which file, and what to do.

    Attributes:
        kind: one of KINDS.
        message: a sentence that names file and record.
        severity: "error": training or evaluation cannot use the data set; "warning": it can, but
            leaves something out or takes it otherwise than meant; "note": nothing to worry about.
        image_id: of the image that is concerned, if its id is known; of images with label images
            it is their name.
        annotation_id: likewise.
    """

    kind: str
    message: str
    severity: str = "error"
    image_id: int | str | None = None
    annotation_id: int | None = None

    @property
    def fatal(self) -> bool:
        """Whether training or evaluation cannot use the data set."""
        return self.severity == "error"


def raise_on_problems(problems: Iterable[Problem], files: str = "JSON IMAGES") -> None:
    """Raise a DataError with the first error in full and the number of the others.

    `files` says what tools/check_dataset.py, which shows all, is to be called with.
    """
    first, more = None, 0
    for problem in problems:
        if problem.fatal and first is None:
            first = problem
        elif problem.fatal:
            more += 1
    if first is None:
        return
    others = (
        f" ({more} more {'problem' if more == 1 else 'problems'} in the same data set: "
        f"tools/check_dataset.py {files} lists all.)"
    )
    raise DataError(first.message + (others if more else ""))


def warnings_unless_fatal(problems: Iterable[Problem], files: str = "JSON IMAGES") -> list[str]:
    """Raise on errors as `raise_on_problems`; return the first warning of each kind, and how many.

    Keeps few of the problems: a large data set may have one in every record.
    """
    first: dict[str, str] = {}
    counts = Counter()

    def errors() -> Iterator[Problem]:
        for problem in problems:
            if problem.severity == "warning":
                first.setdefault(problem.kind, problem.message)
                counts[problem.kind] += 1
            else:
                yield problem

    raise_on_problems(errors(), files)
    return [
        f"{message} ({counts[kind] - 1} more like this one)" if counts[kind] > 1 else message
        for kind, message in first.items()
    ]
