"""Checks of COCO-format annotation files, before they end a training run halfway through.

Pure: standard library and Pillow. One pass finds everything; `raise_on_problems` turns the findings
into one sentence for the person who started the run.
"""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, ImageOps

from ..errors import DataError

__all__ = ["Problem", "check_coco", "diagnose_image", "raise_on_problems", "read_coco_json"]

_ANNOTATION_KEYS = frozenset({"id", "image_id", "category_id"})


@dataclass(frozen=True)
class Problem:
    """One finding: what is wrong in which record of which file, and what to do.

    Attributes:
        kind: file, structure, duplicate, category, image, box, segmentation or empty.
        message: a sentence that names file and record.
        fatal: False for what training survives by leaving the object out.
    """

    kind: str
    message: str
    fatal: bool = True


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
        check_files: "exists" looks for every image file, "open" also decodes it and compares its
            size, None looks at the json alone.
        require_objects: whether a file without images or objects is a problem.

    Returns:
        the problems, in the order of the file; an empty list when all is well.
    """
    try:
        data = read_coco_json(json_file)
    except DataError as error:
        return [Problem("file", str(error))]
    problems = list(_structure_problems(data, str(json_file), require_objects))
    if problems:
        return problems
    return list(_record_problems(data, str(json_file), str(image_root), check_files)) + list(
        _empty_problems(data, str(json_file), require_objects)
    )


def raise_on_problems(problems: list[Problem]) -> None:
    """Raise a DataError with the first fatal problem in full and the number of the others."""
    fatal = [problem for problem in problems if problem.fatal]
    if not fatal:
        return
    more = len(fatal) - 1
    others = f" ({more} more {'problem' if more == 1 else 'problems'} in the same data set.)"
    raise DataError(fatal[0].message + (others if more else ""))


def read_coco_json(json_file: str | os.PathLike, what: str = "annotation file") -> object:
    """Parse a json file; a DataError says what keeps it from being read, calling it `what`."""
    try:
        with open(json_file, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise DataError(
            f"{what} {json_file} does not exist: check the path (relative paths start at "
            f"{os.getcwd()})."
        ) from None
    except json.JSONDecodeError as error:
        if not error.doc.strip():
            raise DataError(f"{what} {json_file} is empty.") from None
        raise DataError(
            f"{what} {json_file} is not json: {error.msg} at line {error.lineno}, column "
            f"{error.colno}; was it copied completely?"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{what} {json_file} is not json: byte {error.start} is not UTF-8 text; is it "
            "the right file?"
        ) from None
    except RecursionError:
        raise DataError(f"{what} {json_file} is not COCO: it nests too deeply.") from None
    except OSError as error:
        raise DataError(f"{what} {json_file} cannot be read: {error.strerror or error}.") from None


def diagnose_image(path: str | os.PathLike, width: int | None, height: int | None) -> str | None:
    """What is wrong with an image file, None if it decodes to the given size.

    Args:
        path: the file.
        width: pixels it should have after its EXIF orientation is applied; None: any.
        height: likewise.
    """
    path = str(path)
    if not os.path.exists(path):
        return f"{path} does not exist: check the image folder and the file name in the json"
    try:
        with Image.open(path) as image:
            stored = image.size
            image.load()
            turned = ImageOps.exif_transpose(image).size
    except Image.UnidentifiedImageError:
        return f"{path} is not an image file (or of a format that Pillow cannot read): replace it"
    except Image.DecompressionBombError as error:
        return f"{path} is too large to be read safely: {error}"
    except (OSError, SyntaxError, ValueError) as error:
        return f"{path} is truncated or damaged ({error}): copy or download it again"
    if width is None or height is None or turned == (width, height):
        return None
    said = f"{path} is {turned[0]}x{turned[1]} pixels, but the json says {width}x{height}"
    if stored == (width, height):
        return (
            f"{said}, its size before its EXIF orientation is applied: if the boxes were drawn on "
            "the unturned picture, remove the orientation tag from the file, else correct the "
            "json's width and height"
        )
    if turned == (height, width):
        return f"{said}, width and height swapped: correct the json or turn the picture"
    return f"{said}: correct the json, or restore the picture that was annotated"


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
    if not require_objects:
        return
    annotations = data["annotations"]
    if not data["images"]:
        yield Problem("empty", f"{source} has no images: the data set is empty.")
    elif not annotations:
        yield Problem("empty", f"{source} has {len(data['images'])} images but not one annotation.")
    elif all(isinstance(item, dict) and item.get("iscrowd") == 1 for item in annotations):
        yield Problem(
            "empty", f"{source} has crowd annotations only: there is no object to learn from."
        )


# ---- record by record ---------------------------------------------------------------------------


def _record_problems(
    data: dict, source: str, image_root: str, check_files: str | None
) -> Iterator[Problem]:
    categories = yield from _check_categories(data["categories"], source)
    images = yield from _check_images(data["images"], source)
    if check_files is not None:
        yield from _check_image_files(images, source, image_root, check_files)
    yield from _check_annotations(data.get("annotations", []), images, categories, source)


def _check_categories(records: list, source: str):
    """Yield the problems of the categories; return the set of their ids."""
    ids = set()
    for index, record in enumerate(records):
        where = f"{source}: category number {index + 1}"
        if not isinstance(record, dict) or not {"id", "name"} <= record.keys():
            yield Problem("structure", f"{where} needs the keys id and name.")
        elif not _is_id(record["id"]):
            yield Problem(
                "structure", f"{where} has the id {record['id']!r}: ids are whole numbers."
            )
        elif not isinstance(record["name"], str) or not record["name"]:
            yield Problem("structure", f"{where} (id {record['id']}) needs a text as its name.")
        elif record["id"] in ids:
            yield Problem("duplicate", f"{where} has the id {record['id']} of an earlier category.")
        else:
            ids.add(record["id"])
    return ids


def _check_images(records: list, source: str):
    """Yield the problems of the image records; return the good ones by id."""
    images: dict[int, dict] = {}
    for index, record in enumerate(records):
        where = f"{source}: image number {index + 1}"
        if not isinstance(record, dict) or not {"id", "file_name"} <= record.keys():
            yield Problem("structure", f"{where} needs the keys id, file_name, width and height.")
            continue
        where = f"{source}: image {record['id']!r} ({record['file_name']})"
        if not _is_id(record["id"]) or not isinstance(record["file_name"], str):
            yield Problem(
                "structure", f"{where} needs a whole number as id and a text as file_name."
            )
        elif record["id"] in images:
            yield Problem(
                "duplicate",
                f"{where} has the id of an earlier image, {images[record['id']]['file_name']}: "
                "ids must be unique.",
            )
        else:
            images[record["id"]] = record
            width, height = record.get("width"), record.get("height")
            if not (_is_id(width) and width > 0 and _is_id(height) and height > 0):
                yield Problem(
                    "structure",
                    f"{where} has width {width} and height {height}: both must be whole numbers "
                    "above 0.",
                )
    return images


def _check_image_files(
    images: dict[int, dict], source: str, image_root: str, check_files: str
) -> Iterator[Problem]:
    if not os.path.isdir(image_root):
        yield Problem(
            "image",
            f"image folder {image_root} of {source} does not exist: check the path (relative paths "
            f"start at {os.getcwd()}).",
        )
        return
    listings: dict[str, frozenset[str]] = {}  # one look at a folder instead of one per image
    for record in images.values():
        path = os.path.join(image_root, record["file_name"])
        folder, name = os.path.split(path)
        if folder not in listings:
            listings[folder] = _listing(folder)
        where = f"{source}: image {record['id']}:"
        if name not in listings[folder] and not os.path.isfile(path):
            yield Problem(
                "image",
                f"{where} {path} does not exist: check the image folder and the file name in the "
                "json.",
            )
        elif check_files == "open":
            finding = diagnose_image(path, record.get("width"), record.get("height"))
            if finding:
                yield Problem("image", f"{where} {finding}.")


def _listing(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def _check_annotations(
    records: list, images: dict[int, dict], categories: set[int], source: str
) -> Iterator[Problem]:
    seen = set()
    for index, record in enumerate(records):
        if not isinstance(record, dict) or not record.keys() >= _ANNOTATION_KEYS:
            yield Problem(
                "structure",
                f"{source}: annotation number {index + 1} needs the keys id, image_id, "
                "category_id and bbox.",
            )
            continue
        finding = _annotation_finding(record, images, categories, seen)
        if finding:
            kind, text, fatal = finding
            image = images.get(record["image_id"]) if _is_id(record["image_id"]) else None
            name = f", {image['file_name']}" if image else ""
            where = f"annotation {record['id']!r} (image {record['image_id']!r}{name})"
            yield Problem(kind, f"{source}: {where} {text}.", fatal)


def _annotation_finding(
    record: dict, images: dict[int, dict], categories: set[int], seen: set
) -> tuple[str, str, bool] | None:
    """The first finding about one annotation: kind, the rest of the sentence, fatal."""
    identity, image_id, category_id = record["id"], record["image_id"], record["category_id"]
    if not (_is_id(identity) and _is_id(image_id) and _is_id(category_id)):
        return "structure", "needs whole numbers as id, image_id and category_id", True
    if identity in seen:
        return "duplicate", "has the id of an earlier annotation: ids must be unique", True
    seen.add(identity)
    if image_id not in images:
        return "image", "belongs to an image that is not listed: add the image or drop it", True
    if category_id not in categories:
        known = f"{min(categories)} to {max(categories)}" if categories else "none"
        return (
            "category",
            f"has category_id {category_id}, which is not among the categories (ids {known}): add "
            "the category or correct the annotation",
            True,
        )
    image = images[image_id]
    return (
        _box_finding(record, image)
        or _segmentation_finding(record, image)
        or _extra_finding(record)
    )


def _box_finding(record: dict, image: dict) -> tuple[str, str, bool] | None:
    try:
        x, y, width, height = box = record["bbox"]
        finite = math.isfinite(x + y + width + height)
    except KeyError:
        return "box", "has no bbox", True
    except (TypeError, ValueError):
        return "box", f"has the bbox {record['bbox']!r}: four numbers x, y, width, height", True
    if not finite:
        return "box", f"has the bbox {box}: all numbers must be finite", True
    if width < 0 or height < 0:
        return (
            "box",
            f"has the bbox {box} of negative size: COCO boxes are x, y, width, height",
            True,
        )
    if width == 0 or height == 0:
        # The official COCO training set has two of these.
        return "box", f"has the bbox {box} without area: it is left out in training", False
    inside = x + width > 0 and y + height > 0
    try:
        inside = inside and x < image["width"] and y < image["height"]
    except (KeyError, TypeError):
        return None  # the image record has been reported
    if not inside:
        return "box", f"has the bbox {box} outside the image: it is left out in training", False
    return None


def _segmentation_finding(record: dict, image: dict) -> tuple[str, str, bool] | None:
    segmentation = record.get("segmentation")
    if not segmentation:
        return None  # boxes alone
    if isinstance(segmentation, dict):
        return _rle_finding(segmentation, image)
    if not isinstance(segmentation, list):
        return "segmentation", "has a segmentation that is neither polygons nor RLE", True
    for polygon in segmentation:
        if not isinstance(polygon, list):
            return (
                "segmentation",
                "has a segmentation that is not a list of polygons [[x1, y1, x2, y2, ...], ...]",
                True,
            )
        if len(polygon) < 6 or len(polygon) % 2:
            return (
                "segmentation",
                f"has a polygon of {len(polygon)} numbers: at least 3 points, each x and y, are "
                "needed",
                True,
            )
        try:
            finite = math.isfinite(sum(polygon))
        except TypeError:
            finite = False
        if not finite:
            return "segmentation", "has a polygon whose coordinates are not all numbers", True
    return None


def _rle_finding(segmentation: dict, image: dict) -> tuple[str, str, bool] | None:
    if not isinstance(segmentation.get("counts"), (str, list)):
        return "segmentation", "has an RLE segmentation without counts", True
    size = [image.get("height"), image.get("width")]
    if segmentation.get("size") != size:
        return (
            "segmentation",
            f"has an RLE segmentation of size {segmentation.get('size')}, but its image has "
            f"[height, width] = {size}",
            True,
        )
    return None


def _extra_finding(record: dict) -> tuple[str, str, bool] | None:
    if type(record.get("area")) not in (int, float):
        return (
            "structure",
            "has no area, which COCO's evaluation needs: add it (of a box without mask: its width "
            "times its height)",
            True,
        )
    if record.get("ignore"):
        return (
            "structure",
            "is marked 'ignore', which training does not know: drop it, or set iscrowd to 1",
            True,
        )
    return None


def _is_id(value: object) -> bool:
    return type(value) is int  # a bool is none


def _json_type(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value"}
    return names.get(type(value), "nothing" if value is None else "a number")
