"""Checks of COCO annotation records: ids, boxes, masks, and what evaluation needs beside them.

Called for every annotation of a data set before its training starts, so what is right must pass
quickly: a data set of COCO's size takes some seconds.
"""

import itertools
import math
import re
from collections.abc import Iterator

import numpy as np

from .problems import Problem

__all__ = ["check_annotations", "decode_rle_counts", "is_id"]

_KEYS = frozenset({"id", "image_id", "category_id"})
_SLACK = 1.0  # pixels that rounding may put a box or a mask out of its image
# What lies further out than so many image sides belongs to no such image, and drawing it as a
# bitmap could take all memory.
_FAR = 10
_HUGE = 2**53  # beyond it, not even all whole numbers are numbers
_RLE_TEXT = re.compile(r"(?:[P-o]{0,6}[0-O])*")

Finding = tuple[str, str, str]  # kind, severity, the rest of the sentence


def check_annotations(
    records: list, images: dict[int, dict], categories: set[int], source: str
) -> Iterator[Problem]:
    """Yield everything that is wrong with annotations.

    Args:
        records: the json's annotations.
        images: the json's image records by id.
        categories: the ids of its categories.
        source: the json file, for the sentences.
    """
    seen: set[int] = set()
    bare: list[dict] = []  # objects without a mask
    masks = 0
    for index, record in enumerate(records):
        if not isinstance(record, dict) or not record.keys() >= _KEYS:
            yield Problem(
                "structure",
                f"{source}: annotation number {index + 1} needs the keys id, image_id, "
                "category_id and bbox.",
            )
            continue
        for finding in _findings(record, images, categories, seen):
            yield _problem(record, images, source, finding)
        if record.get("iscrowd", 0) == 0:
            if record.get("segmentation"):
                masks += 1
            else:
                bare.append(record)
    if masks:
        text = (
            "has no segmentation, but other objects have: masks cannot be trained on this data set "
            "(boxes alone can: custom_coco_boxes.py)"
        )
        for record in bare:
            yield _problem(record, images, source, ("mask-missing", "warning", text))


def is_id(value: object) -> bool:
    """Whether a value of a json is a whole number; true and false are none."""
    return type(value) is int


def _problem(record: dict, images: dict[int, dict], source: str, finding: Finding) -> Problem:
    kind, severity, text = finding
    identity, image_id = record["id"], record["image_id"]
    image = images.get(image_id) if is_id(image_id) else None
    name = f", {image['file_name']}" if image else ""
    return Problem(
        kind,
        f"{source}: annotation {identity!r} (image {image_id!r}{name}) {text}.",
        severity,
        image_id if is_id(image_id) else None,
        identity if is_id(identity) else None,
    )


def _findings(
    record: dict, images: dict[int, dict], categories: set[int], seen: set[int]
) -> Iterator[Finding]:
    """Everything about one annotation."""
    identity, image_id, category_id = record["id"], record["image_id"], record["category_id"]
    if not (is_id(identity) and is_id(image_id) and is_id(category_id)):
        yield "structure", "error", "needs whole numbers as id, image_id and category_id"
        return
    if identity in seen:
        text = "has the id of an earlier annotation: ids must be unique"
        yield "duplicate-id", "error", text
    seen.add(identity)
    if identity == 0:
        text = "has the id 0, which pycocotools takes for 'no match' in evaluation: count from 1"
        yield "zero-id", "note", text
    if category_id not in categories:
        known = f"{min(categories)} to {max(categories)}" if categories else "none"
        text = f"has category_id {category_id}, which is not among the categories (ids {known})"
        yield "category", "error", f"{text}: add the category or correct the annotation"
    size = None
    if image_id not in images:
        text = "belongs to an image that is not listed: add the image or drop it"
        yield "image-id", "error", text
    else:
        size = _size(images[image_id])
    yield from _box_findings(record, size)
    segmentation = record.get("segmentation")
    if isinstance(segmentation, list):
        yield from _polygon_findings(segmentation, size)
    elif isinstance(segmentation, dict) and segmentation:
        yield from _rle_findings(segmentation, size)
    elif segmentation:
        yield "polygon", "error", "has a segmentation that is neither polygons nor RLE"
    yield from _extra_findings(record)


def _size(image: dict) -> tuple[int, int] | None:
    """Width and height of an image record; None where they are wrong, which is reported there."""
    width, height = image.get("width"), image.get("height")
    return (width, height) if is_id(width) and is_id(height) else None


# ---- boxes --------------------------------------------------------------------------------------


def _box_findings(record: dict, size: tuple[int, int] | None) -> Iterator[Finding]:
    try:
        x, y, width, height = box = record["bbox"]
        # Never of NaN; one by one, for not all whole numbers have a sum with a fraction.
        finite = abs(x) < _HUGE and abs(y) < _HUGE and abs(width) < _HUGE and abs(height) < _HUGE
    except KeyError:
        yield "box", "error", "has no bbox"
        return
    except (TypeError, ValueError):
        text = f"has the bbox {_short(record['bbox'])}: four numbers x, y, width, height are needed"
        yield "box", "error", text
        return
    if not finite:
        yield "box", "error", f"has the bbox {_short(box)}: all four must be finite numbers"
    elif width < 0 or height < 0:
        text = f"has the bbox {box} of negative size: COCO boxes are x, y, width, height"
        yield "box", "error", text
    elif width == 0 or height == 0:
        # The official COCO training set has two of these.
        text = f"has the bbox {box} without area: it is left out in training"
        yield "box-empty", "warning", text
    elif size:
        yield from _position_findings(x, y, width, height, size)


def _position_findings(x, y, width, height, size: tuple[int, int]) -> Iterator[Finding]:
    inside = x >= -_SLACK and y >= -_SLACK
    if inside and x + width <= size[0] + _SLACK and y + height <= size[1] + _SLACK:
        return
    text = (
        f"has the bbox {[x, y, width, height]} {{}} its image of {size[0]}x{size[1]} pixels: {{}}"
    )
    if x + width > 0 and y + height > 0 and x < size[0] and y < size[1]:
        hint = "it is cut in training; check that it is x, y, width, height and not two corners"
        yield "box-outside", "warning", text.format("reaching out of", hint)
    else:
        yield "box-outside", "warning", text.format("outside", "it is left out in training")


# ---- masks --------------------------------------------------------------------------------------


def _polygon_findings(polygons: list, size: tuple[int, int] | None) -> Iterator[Finding]:
    for polygon in polygons:
        if not isinstance(polygon, list):
            text = "has a segmentation that is not a list of polygons [[x1, y1, x2, y2, ...], ...]"
            yield "polygon", "error", text
            return
        if len(polygon) < 6 or len(polygon) % 2:
            text = f"has a polygon of {len(polygon)} numbers: at least 3 points, each x and y, are "
            yield "polygon", "error", text + "needed"
            continue
        try:
            finite = math.isfinite(sum(polygon))
        except (TypeError, OverflowError):
            finite = False
        if not finite:
            yield "polygon", "error", "has a polygon whose coordinates are not all finite numbers"
        elif size:
            yield from _extent_findings(polygon, size)


def _extent_findings(polygon: list[float], size: tuple[int, int]) -> Iterator[Finding]:
    if min(polygon) >= -_SLACK and max(polygon) <= min(size) + _SLACK:
        return  # most, without slicing
    xs, ys = polygon[::2], polygon[1::2]
    left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
    outside = max(-left, -top, right - size[0], bottom - size[1])
    if outside <= _SLACK:
        return
    text = (
        f"has a polygon from ({left:.6g}, {top:.6g}) to ({right:.6g}, {bottom:.6g}) in an image of "
        f"{size[0]}x{size[1]} pixels"
    )
    if outside > _FAR * max(size):
        text += ": these are no coordinates of this image"
        yield "polygon-outside", "error", text
    else:
        yield "polygon-outside", "warning", text + ": check that it belongs to this image"


def _rle_findings(rle: dict, size: tuple[int, int] | None) -> Iterator[Finding]:
    counts, said = rle.get("counts"), rle.get("size")
    if not isinstance(counts, (str, list)):
        yield "rle", "error", "has an RLE segmentation without counts"
        return
    if size and said != [size[1], size[0]]:
        text = f"has an RLE segmentation of size {_short(said)}, but its image has [height, width] "
        yield "rle", "error", f"{text}= {[size[1], size[0]]}"
        return
    if not (isinstance(said, list) and len(said) == 2 and all(map(is_id, said))):
        yield "rle", "error", "has an RLE segmentation without a size [height, width]"
        return
    if isinstance(counts, str):
        counts = decode_rle_counts(counts)
        if counts is None:
            yield "rle", "error", "has compressed RLE counts that are damaged: they do not decode"
            return
    elif not (set(map(type, counts)) <= {int} and min(counts, default=0) >= 0):
        yield "rle", "error", "has RLE counts that are not all whole numbers from 0 up"
        return
    total = sum(counts)
    if total != said[0] * said[1]:
        text = f"has RLE counts of {total} pixels together, but a size of {said[0]}x{said[1]} = "
        yield "rle", "error", f"{text}{said[0] * said[1]}"


def decode_rle_counts(text: str) -> list[int] | None:
    """Decode COCO's compressed run lengths; None where the text is damaged.

    pycocotools, given a damaged text, may read and write where it should not.
    A number is written five bits a character, lowest first, the sixth bit saying that more follow;
    from the fourth number on it is the difference to the last but one.
    """
    if not _RLE_TEXT.fullmatch(text):
        return None
    codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    if not codes.size:
        return []
    ends = np.flatnonzero(codes < 32)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    shifts = 5 * (np.arange(codes.size) - np.repeat(starts, lengths))
    values = np.add.reduceat((codes & 31) << shifts, starts)
    values -= (codes[ends] >> 4 & 1) << 5 * lengths  # the highest bit is the sign
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return None if (values < 0).any() else values.tolist()


# ---- the rest -----------------------------------------------------------------------------------


def _extra_findings(record: dict) -> Iterator[Finding]:
    area = record.get("area")
    if type(area) not in (int, float) or not 0 <= area < math.inf:
        said = "no area" if area is None else f"the area {_short(area)}"
        text = f"has {said}: evaluation by size takes that of its mask, or else of its box"
        yield "area", "warning", text
    crowd = record.get("iscrowd")
    if "iscrowd" not in record:
        yield "iscrowd", "warning", "has no iscrowd: it is taken for a single object (iscrowd 0)"
    elif crowd not in (0, 1):
        text = f"has iscrowd {_short(crowd)}: 0 for a single object, 1 for a crowd"
        yield "iscrowd", "error", text
    if record.get("ignore"):
        text = "is marked 'ignore', which training does not know: drop it, or set iscrowd to 1"
        yield "ignore", "error", text


def _short(value: object, limit: int = 60) -> str:
    text = repr(list(itertools.islice(value, limit)) if isinstance(value, list) else value)
    return text if len(text) <= limit else f"{text[:limit]}..."
