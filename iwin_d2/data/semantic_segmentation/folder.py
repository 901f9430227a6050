"""Data sets of images and label images in folders: registered, checked before use, loaded."""

import functools
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...d2.data import MetadataCatalog
from ...errors import DataError
from ..class_file import settle_names
from ..image_check import in_threads
from ..problems import Problem, raise_on_problems, warnings_unless_fatal
from ..registered import load_registered
from ..registry import register, registered_entry
from .headers import describe_problem, header_findings
from .label_format import IGNORE_VALUE, LabelFormat
from .pairs import Folders, Pair, find_pairs

__all__ = ["load_registered_segmentation", "register_folder"]

logger = logging.getLogger(__name__)

_THREADS = 8  # that read headers: on a network disk, each waits for most of its time
_UNKNOWN = (1, 1)  # the size of an image that cannot be read, and has a "problem"
TOOL_ARGUMENTS = "IMAGES LABELS --classes FILE"


@dataclass(frozen=True)
class _Entry:
    """What the loading of a data set depends on."""

    folders: Folders
    form: LabelFormat
    names: tuple[str, ...]
    hint: str


def register_folder(
    name: str,
    images: str | os.PathLike,
    labels: str | os.PathLike,
    classes: str | os.PathLike | Sequence[str] | None = None,
    *,
    reduce_zero_label: bool = False,
    ignore_value: int = IGNORE_VALUE,
    num_classes: int | None = None,
    label_values: Mapping[int, int] | None = None,
    accept_palette: bool = False,
    image_suffix: str | None = None,
    label_suffix: str | None = None,
    list_file: str | os.PathLike | None = None,
    hint: str = "",
) -> str:
    """Register a folder of images and one of label images, and return the name, so that a lazy
    config can say

        dataset.names = L(register_folder)(name="custom_train", images=..., labels=..., classes=...)

    An image and its label image have the same path in their folders, up to the suffix. A label
    image has one number a pixel: the class, counted from 0 in the order of the class file. Only the
    class file is read now; when the data set is loaded, the headers of all files are checked.
    Registering a name again with other arguments replaces the earlier data set.

    Args:
        name: under which the data set is known to the catalogs.
        images: the folder of the images; subfolders are searched, too.
        labels: the folder of the label images.
        classes: a text file of class names, one a line, or the names themselves; None: the classes
            are named by their numbers, and `num_classes` says how many there are.
        reduce_zero_label: True where the files count classes from 1, and 0 means "other", as in
            ADE20K: 0 is ignored, 1 becomes class 0.
        ignore_value: of pixels in the files that belong to no class.
        num_classes: the number of classes, to be compared with `classes`.
        label_values: value in the files -> class number, or `ignore_value`, where they are neither
            of both.
        accept_palette: whether the numbers of a palette's colours are the classes, as in Pascal
            VOC; otherwise palette files are refused.
        image_suffix: what the names of images end in, where that is more than the suffix.
        label_suffix: likewise, of label images; "_mask.png", say.
        list_file: a text file with the images to take, one a line, without the suffix.
        hint: what to do where a folder is missing, for the sentence.

    Raises:
        DataError: the class file cannot be used, or the name belongs to a data set that was not
            registered by this project. When the data set is loaded: whatever its check finds.
        ConfigError: settings that contradict each other.
    """
    names = settle_names(classes, num_classes)
    folders = Folders(
        os.fspath(images),
        os.fspath(labels),
        image_suffix or None,
        label_suffix or None,
        os.fspath(list_file) if list_file is not None else None,
    )
    form = LabelFormat(len(names), ignore_value, reduce_zero_label, label_values, accept_palette)
    entry = _Entry(folders, form, names, hint)
    return register(
        name,
        entry,
        functools.partial(_load, entry),
        stuff_classes=list(names),
        ignore_label=form.ignore_value,
        reduce_zero_label=form.reduce_zero_label,
        label_values=form.label_values,
        image_root=folders.images,
        sem_seg_root=folders.labels,
        evaluator_type="sem_seg",
    )


def load_registered_segmentation(names: str | Sequence[str], max_bad_images: int = 0) -> list[dict]:
    """Load the records of one or several registered data sets of semantic segmentation.

    Records have file_name, sem_seg_file_name, height, width and image_id; where they are not the
    defaults of `LabelFormat`, also what the values of their label files mean. Data sets that others
    have registered are given what they lack of these.

    Args:
        names: of the data sets; several are joined.
        max_bad_images: that of the loader. With 0, files whose headers say that they cannot be used
            end the loading; else they are left to the mapper.

    Raises:
        DataError: files are missing, or their headers say that they cannot be used; data sets of
            different classes are to be joined; a data set has no label images.
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise DataError("no data set is named: set the loader's dataset.names.")
    records = []
    for name in names:
        loaded = load_registered(name, filter_empty=False)
        records += loaded if registered_here(name) else [_completed(r, name) for r in loaded]
    _check_same_classes(names)
    bad = [record for record in records if "problem" in record]
    if bad and not max_bad_images:
        more = len(bad) - 1
        others = f" ({more} more {'file' if more == 1 else 'files'} like this one: tools/"
        others += f"check_dataset.py {TOOL_ARGUMENTS} lists all.)"
        raise DataError(f"{describe_problem(bad[0])}.{others if more else ''}")
    return records


def registered_here(name: str) -> bool:
    """Whether a data set was registered by `register_folder`."""
    return isinstance(registered_entry(name), _Entry)


def _completed(record: dict, name: str) -> dict:
    """A record of a data set that others have registered, with what ours have."""
    if "sem_seg_file_name" not in record:
        raise DataError(
            f"data set {name!r} has no label images (its records have no sem_seg_file_name): "
            "choose one of semantic segmentation."
        )
    metadata = MetadataCatalog.get(name)
    record = {"image_id": record["file_name"], **record}
    if metadata.get("stuff_classes"):
        record.setdefault("num_classes", len(metadata.stuff_classes))
    if metadata.get("ignore_label") not in (None, IGNORE_VALUE):
        record.setdefault("ignore_value", metadata.ignore_label)
    pair = Pair(str(record["image_id"]), record["file_name"], record["sem_seg_file_name"])
    form = LabelFormat.of_record(record)
    size, findings = header_findings(pair, form, brief=True)
    for key, side in zip(("width", "height"), size or _UNKNOWN):
        record.setdefault(key, side)
    errors = [text for _, severity, text in findings if severity == "error"]
    return {**record, "problem": errors[0]} if errors else record


def _check_same_classes(names: Sequence[str]) -> None:
    first = MetadataCatalog.get(names[0]).get("stuff_classes")
    for name in names[1:]:
        if MetadataCatalog.get(name).get("stuff_classes") != first:
            raise DataError(
                f"data sets {names[0]!r} and {name!r} cannot be joined, for they differ in their "
                "classes: give both the same class file."
            )


def _load(entry: _Entry) -> list[dict]:
    """Check names and headers of all files; return the records.

    Where the header of a file says that it cannot be used, the record has a "problem".
    """
    start = time.perf_counter()
    pairs, problems = find_pairs(entry.folders)
    raise_on_problems((_with_hint(problem, entry.hint) for problem in problems), TOOL_ARGUMENTS)
    extra, records = entry.form.as_record(), []
    read = functools.partial(header_findings, form=entry.form, brief=True)
    for pair, (size, findings) in in_threads(read, pairs, _THREADS):
        width, height = size or _UNKNOWN
        record = {
            "file_name": pair.image,
            "sem_seg_file_name": pair.label,
            "height": height,
            "width": width,
            "image_id": pair.name,
            **extra,
        }
        for kind, severity, text in findings:
            if severity == "error":
                record.setdefault("problem", text)
            else:
                problems.append(Problem(kind, f"{text}.", severity, pair.name))
        records.append(record)
    for warning in warnings_unless_fatal(problems):
        logger.warning("%s", warning)
    logger.info(
        "Loaded %d images of %s with labels of %s, %d classes (%.1f s)",
        *(len(records), entry.folders.images, entry.folders.labels),
        *(len(entry.names), time.perf_counter() - start),
    )
    return records


def _with_hint(problem: Problem, hint: str) -> Problem:
    if not hint or problem.kind not in ("image-missing", "label-missing", "file"):
        return problem
    return replace(problem, message=f"{problem.message.rstrip('.')}; {hint}.")
