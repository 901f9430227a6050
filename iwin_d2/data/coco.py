"""Data sets in COCO format: registered by path, checked before use, classes read from the json."""

import functools
import logging
import os
from dataclasses import dataclass

from ..d2.data import MetadataCatalog
from ..errors import DataError
from .coco_check import check_categories, find_problems
from .coco_json import read_coco_json, read_single_list
from .coco_records import coco_records
from .memory import paused_gc, release_memory, spare_gc
from .problems import raise_on_problems, warnings_unless_fatal
from .registry import register, registered_entry

__all__ = ["check_registered", "coco_class_names", "num_coco_classes", "register_coco"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    """What the loading of a data set depends on: the arguments of `register_coco`."""

    json_file: str
    image_root: str
    same_classes_as: str | None
    require_objects: bool
    check_files: str | None


def register_coco(
    name: str,
    json_file: str,
    image_root: str,
    *,
    same_classes_as: str | None = None,
    require_objects: bool = True,
    check_files: str | None = "exists",
) -> str:
    """Register a data set in COCO format and return its name, so that a lazy config can say

        dataset.names = L(register_coco)(name="custom_train", json_file=..., image_root=...)

    Nothing is read yet. When the data set is loaded, its json and the presence of its images are
    checked first. Registering a name again with other paths replaces the earlier data set.

    Args:
        name: under which the data set is known to the catalogs.
        json_file: the COCO annotation file.
        image_root: the folder that its `file_name`s are relative to.
        same_classes_as: another json file, that of the training set, whose classes must be the
            same ones.
        require_objects: whether an annotation file without objects is an error.
        check_files: "exists" looks for the image files before anything is loaded, in one listing
            of each folder; None does not; "open" reads them all, which takes long.

    Raises:
        DataError: the name belongs to a data set that was not registered by this function. When
            the data set is loaded: whatever `check_coco` or `check_same_classes` finds.
    """
    entry = _Entry(str(json_file), str(image_root), same_classes_as, require_objects, check_files)
    return register(
        name,
        entry,
        functools.partial(_load, name, entry),
        json_file=entry.json_file,
        image_root=entry.image_root,
        evaluator_type="coco",
    )


def check_registered(name: str) -> None:
    """Check a data set that `register_coco` knows, as its loading would, without loading it.

    For data sets that are not needed before training has gone on for a while. Data sets that others
    have registered are let pass.

    Raises:
        DataError: as the loading.
    """
    entry = registered_entry(name)
    if isinstance(entry, _Entry):
        _read_checked(entry)
        release_memory()


def _load(name: str, entry: _Entry) -> list[dict]:
    """Check a data set, then make its records in the framework's format."""
    with paused_gc():
        data = _read_checked(entry)
        records, classes, category_numbers = coco_records(data, entry.image_root)
        spare_gc(sum(len(record["annotations"]) for record in records))
    MetadataCatalog.get(name).set(
        thing_classes=classes, thing_dataset_id_to_contiguous_id=category_numbers
    )
    logger.info("Loaded %d images in COCO format from %s", len(records), entry.json_file)
    return records


def _read_checked(entry: _Entry) -> dict:
    """Parse a json; raise on what is fatal in its data set, log what is not."""
    data = read_coco_json(entry.json_file)
    problems = find_problems(
        data,
        entry.json_file,
        entry.image_root,
        check_files=entry.check_files,
        require_objects=entry.require_objects,
    )
    with paused_gc():
        warnings = warnings_unless_fatal(problems)
    if entry.same_classes_as is not None:
        check_same_classes(entry.same_classes_as, entry.json_file)
    for warning in warnings:
        logger.warning("%s", warning)
    return data


def check_same_classes(train_json: str, other_json: str) -> None:
    """Raise a DataError unless both files list the same classes in the same order of ids."""
    ours, theirs = coco_class_names(train_json), coco_class_names(other_json)
    if ours == theirs:
        return
    missing = [name for name in ours if name not in theirs]
    added = [name for name in theirs if name not in ours]
    if missing:
        detail = f"the latter lacks {_list_some(missing)}"
    elif added:
        detail = f"the latter adds {_list_some(added)}"
    else:
        index = next(i for i, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1])
        detail = f"in the order of their ids, number {index + 1} is {ours[index]!r} in the former "
        detail += f"and {theirs[index]!r} in the latter"
    raise DataError(
        f"{train_json} and {other_json} do not have the same categories: {detail}; give both files "
        "the same category list, also for classes without objects."
    )


def coco_class_names(json_file: str) -> list[str]:
    """The class names of a COCO file, in the order of their ids: the classes' contiguous order.

    Raises:
        DataError: the file cannot be read or has no proper list of categories.
    """
    try:
        state = os.stat(json_file)
    except OSError:
        read_coco_json(json_file)  # says why it cannot be read
        raise
    return list(_class_names(os.path.abspath(json_file), state.st_mtime_ns, state.st_size))


def num_coco_classes(json_file: str) -> int:
    """The number of classes of a COCO file, for `num_classes` in lazy configs.

    Raises:
        DataError: as `coco_class_names`.
    """
    return len(coco_class_names(json_file))


@functools.lru_cache(maxsize=32)
def _class_names(json_file: str, mtime_ns: int, size: int) -> tuple[str, ...]:
    categories = read_single_list(json_file, "categories")
    if not categories:
        data = read_coco_json(json_file)
        categories = data.get("categories") if isinstance(data, dict) else None
        if not isinstance(data, dict):
            raise_on_problems(find_problems(data, json_file, ""))
    if not isinstance(categories, list) or not categories:
        raise DataError(
            f"{json_file} is not a COCO data set: it has no list of 'categories' to take the "
            "classes from."
        )
    raise_on_problems(check_categories(categories, json_file))
    return tuple(item["name"] for item in sorted(categories, key=lambda c: c["id"]))


def _list_some(names: list[str], limit: int = 5) -> str:
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
