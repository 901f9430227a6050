"""Checks of COCO-format data sets, before they end a training run halfway through.

One pass finds everything; `raise_on_problems` turns the findings into one sentence for the person
who started the run, `tools/check_dataset.py` into a report.
"""

import os
from collections.abc import Callable, Iterator

from ..errors import DataError
from .annotation_check import check_annotations, is_id
from .coco_json import read_coco_json
from .image_check import check_image_files, diagnose_image, unlisted_files
from .memory import paused_gc
from .problems import Problem, raise_on_problems

__all__ = [
    "Problem",
    "check_categories",
    "check_coco",
    "diagnose_image",
    "find_problems",
    "raise_on_problems",
    "read_coco_json",
]


def check_coco(
    json_file: str | os.PathLike,
    image_root: str | os.PathLike,
    *,
    check_files: str | None = "exists",
    require_objects: bool = True,
) -> list[Problem]:
    """Find everything in a COCO annotation file that training or evaluation would trip over.

    Args:
        json_file: the annotation file.
        image_root: the folder that the `file_name`s are relative to.
        check_files: "exists" looks for every image file, "open" also decodes it, compares its size
            and names the files that the json does not list, None looks at the json alone.
        require_objects: whether a file without objects is a problem.

    Returns:
        the problems, in the order of the file; an empty list when all is well.
    """
    try:
        data = read_coco_json(json_file)
    except DataError as error:
        return [Problem("file", str(error))]
    with paused_gc():
        return list(
            find_problems(
                data,
                str(json_file),
                str(image_root),
                check_files=check_files,
                require_objects=require_objects,
            )
        )


def find_problems(
    data: object,
    source: str,
    image_root: str,
    *,
    check_files: str | None = "exists",
    require_objects: bool = True,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Problem]:
    """Yield everything that `check_coco` finds, one after the other, in a json already parsed.

    Args:
        data: the parsed json.
        source: the json file, for the sentences.
        image_root: as for `check_coco`.
        check_files: likewise.
        require_objects: likewise.
        workers: with check_files="open", how many threads read images.
        progress: then is told the number of images read and that of all, from time to time.
    """
    broken = False
    for problem in _structure_problems(data, source, require_objects):
        broken = True
        yield problem
    if broken:
        return
    yield from _empty_problems(data, source, require_objects)
    categories = yield from check_categories(data["categories"], source)
    images = yield from _check_images(data["images"], source)
    yield from _check_file_names(images, source)
    if check_files is not None:
        decode = check_files == "open"
        yield from check_image_files(images, source, image_root, decode, workers, progress)
        if decode:
            yield from unlisted_files(images, source, image_root)
    yield from check_annotations(data.get("annotations", []), images, categories, source)


# ---- the file as a whole ------------------------------------------------------------------------


def _structure_problems(data: object, source: str, require_objects: bool) -> Iterator[Problem]:
    """Whether the parsed json is a COCO data set at all."""
    if not isinstance(data, dict):
        looks = ""
        if isinstance(data, list) and data and isinstance(data[0], dict) and "score" in data[0]:
            looks = "; it looks like a results file"
        yield Problem(
            "structure",
            f"{source} is not a COCO data set: it holds {_json_type(data)} instead of an object "
            f"with the keys images, annotations and categories{looks}.",
        )
        return
    required = ["images", "categories"] + (["annotations"] if require_objects else [])
    for key in required:
        if key not in data:
            yield Problem(
                "structure", f"{source} is not a COCO data set: the key {key!r} is missing."
            )
    for key in ("images", "annotations", "categories"):
        if key in data and not isinstance(data[key], list):
            yield Problem(
                "structure",
                f"{source} is not a COCO data set: {key!r} holds {_json_type(data[key])} instead "
                "of a list.",
            )


def _empty_problems(data: dict, source: str, require_objects: bool) -> Iterator[Problem]:
    if not data["categories"]:
        yield Problem("empty", f"{source} has no categories: there is nothing to detect.")
    if not data["images"]:
        yield Problem("empty", f"{source} has no images: the data set is empty.")
    if not data["images"] or not require_objects:
        return
    annotations = data["annotations"]
    if not annotations:
        yield Problem("empty", f"{source} has {len(data['images'])} images but not one annotation.")
    elif all(isinstance(item, dict) and item.get("iscrowd") == 1 for item in annotations):
        yield Problem(
            "empty", f"{source} has crowd annotations only: there is no object to learn from."
        )


# ---- categories and images ----------------------------------------------------------------------


def check_categories(records: list, source: str):
    """Yield the problems of a json's categories; return the set of their ids."""
    names: dict[int, str] = {}
    known: dict[str, int] = {}
    for index, record in enumerate(records):
        where = f"{source}: category number {index + 1}"
        if not isinstance(record, dict) or not {"id", "name"} <= record.keys():
            yield Problem("structure", f"{where} needs the keys id and name.")
        elif not is_id(record["id"]):
            yield Problem(
                "structure", f"{where} has the id {record['id']!r}: ids are whole numbers."
            )
        elif not isinstance(record["name"], str) or not record["name"]:
            yield Problem("structure", f"{where} (id {record['id']}) needs a text as its name.")
        elif record["id"] in names:
            yield Problem(
                "duplicate-id", f"{where} has the id {record['id']} of an earlier category."
            )
        else:
            names[record["id"]] = record["name"]
            same = known.setdefault(record["name"], record["id"])
            if same != record["id"]:
                yield Problem(
                    "category",
                    f"{where} (id {record['id']}) has the name {record['name']!r} of category "
                    f"{same}: they are two classes in training, one line in the results.",
                    "warning",
                )
    return set(names)


def _check_images(records: list, source: str):
    """Yield the problems of the image records; return the good ones by id."""
    images: dict[int, dict] = {}
    for index, record in enumerate(records):
        where = f"{source}: image number {index + 1}"
        if not isinstance(record, dict) or not {"id", "file_name"} <= record.keys():
            yield Problem("structure", f"{where} needs the keys id, file_name, width and height.")
            continue
        identity, name = record["id"], record["file_name"]
        where = f"{source}: image {identity!r} ({name!s:.200})"
        if not is_id(identity) or not isinstance(name, str) or not _can_be_opened(name):
            yield Problem(
                "structure",
                f"{where} needs a whole number as id and the name of a file as file_name.",
            )
        elif identity in images:
            yield Problem(
                "duplicate-id",
                f"{where} has the id of an earlier image, {images[identity]['file_name']}: "
                "ids must be unique.",
                image_id=identity,
            )
        else:
            images[identity] = record
            width, height = record.get("width"), record.get("height")
            if not (is_id(width) and width > 0 and is_id(height) and height > 0):
                yield Problem(
                    "structure",
                    f"{where} has width {width!r} and height {height!r}: both must be whole "
                    "numbers above 0.",
                    image_id=identity,
                )
    return images


def _can_be_opened(name: str) -> bool:
    """Whether a text can be a file's name at all."""
    try:
        return bool(name) and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def _check_file_names(images: dict[int, dict], source: str) -> Iterator[Problem]:
    """Yield what is suspicious about the file names as such."""
    seen: dict[str, tuple[int, str]] = {}  # by the name in lower case: id and name
    for identity, record in images.items():
        name = os.path.normpath(record["file_name"])
        earlier, same = seen.setdefault(name.lower(), (identity, name))
        if earlier == identity:
            continue
        where = f"{source}: image {identity} ({record['file_name']})"
        if same == name:
            kind = "duplicate-file"
            text = f"is the file of image {earlier}, too: each trains without the other's objects"
        else:
            kind = "file-case"
            text = (
                f"and image {earlier} ({same}) differ in upper and lower case only: some file "
                "systems keep just one of them"
            )
        yield Problem(kind, f"{where} {text}.", "warning", identity)


def _json_type(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value"}
    return names.get(type(value), "nothing" if value is None else "a number")
