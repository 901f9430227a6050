"""Checks of image files: present, whole, of the json's size, and read the way they were meant."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from .problems import Problem

__all__ = [
    "IMAGE_SUFFIXES",
    "TURNED",
    "check_image_files",
    "deep_image_problem",
    "diagnose_image",
    "exif_orientation",
    "in_threads",
    "inspect_image",
    "unlisted_files",
]

_ORIENTATION = 0x0112  # EXIF
_PNG_EXIF = ("exif", "Raw profile type exif")
TURNED = range(5, 9)  # the orientations that swap width and height
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
# After so many missing files the listings of the folders are believed without a second look.
_MAX_SECOND_LOOKS = 1000
_BLOCK = 512  # images handed to the threads at a time

Finding = tuple[str, str, str]  # kind, severity, the sentence without its full stop


def diagnose_image(path: str | os.PathLike, width: int | None, height: int | None) -> str | None:
    """What keeps an image file from being used, None if it decodes to the given size.

    Args:
        path: the file.
        width: pixels it should have after its EXIF orientation is applied; None: any.
        height: likewise.
    """
    findings = inspect_image(path, width, height)
    return next((text for _, severity, text in findings if severity == "error"), None)


def inspect_image(
    path: str | os.PathLike, width: int | None = None, height: int | None = None
) -> list[Finding]:
    """Decode an image file and return everything that is wrong with it: kind, severity, sentence.

    The arguments are those of `diagnose_image`.
    """
    path = str(path)
    try:
        if not os.path.exists(path):
            text = f"{path} does not exist: check the image folder and the file name in the json"
            return [("image-missing", "error", text)]
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            text = f"{path} is empty (0 bytes): copy or download it again"
            return [("image-damaged", "error", text)]
        with Image.open(path) as image:
            findings = [*_depth_findings(path, image), *_frame_findings(path, image)]
            image.load()
            findings += _size_findings(path, image, width, height)
            return findings + list(_colour_findings(path, image))
    except Image.UnidentifiedImageError:
        text = f"{path} is not an image file (or of a format that Pillow cannot read): replace it"
    except Image.DecompressionBombError as error:
        text = f"{path} is too large to be read safely: {str(error).rstrip('.')}"
    except MemoryError:
        raise
    except (PermissionError, IsADirectoryError, FileNotFoundError) as error:
        text = f"{path} cannot be read ({error.strerror}): correct the path, or its permissions"
    except Exception as error:  # decoders of damaged files raise whatever they come across
        text = f"{path} is truncated or damaged ({error}): copy or download it again"
    return [("image-damaged", "error", text)]


def deep_image_problem(path: str, image: Image.Image) -> str | None:
    """Say so if an image has a mode whose conversion to RGB loses a part of its range.

    Pillow clips such values at 255, as Detectron2 reads them; native keeps the upper eight bits of
    16. Neither is what a picture of 12 bits, say, wants.
    """
    if not image.mode.startswith(("I", "F")):
        return None
    return (
        f"{path} is an image of 16 or 32 bits a channel (Pillow's mode {image.mode}), of which "
        "training would see only a part of the range: convert it to 8 bits"
    )


def _depth_findings(path: str, image: Image.Image) -> Iterator[Finding]:
    problem = deep_image_problem(path, image)
    if problem:
        yield "image-depth", "error", problem
    elif any(";16" in str(tile[3]) for tile in image.tile):
        text = f"{path} has 16 bits a channel: the upper eight are used"
        yield "image-depth", "warning", text


def _frame_findings(path: str, image: Image.Image) -> Iterator[Finding]:
    frames = getattr(image, "n_frames", 1)
    # Cameras put previews into MPO, a JPEG with further images; the first is the picture.
    if frames > 1 and image.format != "MPO":
        yield "image-frames", "warning", f"{path} has {frames} frames: the first is used"


def _size_findings(
    path: str, image: Image.Image, width: int | None, height: int | None
) -> Iterator[Finding]:
    stored = image.size
    turned = stored[::-1] if exif_orientation(image) in TURNED else stored
    if width is None or height is None or turned == (width, height):
        return
    said = f"{path} is {turned[0]}x{turned[1]} pixels, but the json says {width}x{height}"
    if stored == (width, height):
        text = (
            f"{said}, its size before its EXIF orientation is applied: if the boxes were drawn on "
            "the unturned picture, remove the orientation tag from the file, else correct the "
            "json's width and height"
        )
        yield "image-orientation", "error", text
    elif turned == (height, width):
        text = f"{said}, width and height swapped: correct the json or turn the picture"
        yield "image-size", "error", text
    else:
        text = f"{said}: correct the json, or restore the picture that was annotated"
        yield "image-size", "error", text


def exif_orientation(image: Image.Image) -> int:
    """The EXIF orientation of an open image, 1 to 8; 1 where it has none.

    Of a PNG file that is not decoded yet only what stands before its pixels is looked at.
    """
    if image.format == "PNG" and image.tile and image.info.keys().isdisjoint(_PNG_EXIF):
        return 1
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF comes in many ways and says nothing about the pixels
        return 1


def _colour_findings(path: str, image: Image.Image) -> Iterator[Finding]:
    if image.mode in ("CMYK", "LAB", "HSV"):
        text = f"{path} has {image.mode} colours, which RGB only approximates: convert it yourself"
        yield "image-colours", "warning", text
    elif _has_transparent_pixels(image):
        text = (
            f"{path} has transparent pixels, whose hidden colours come to light when it is read as "
            "RGB: put it on a background"
        )
        yield "image-colours", "warning", text


def _has_transparent_pixels(image: Image.Image) -> bool:
    if image.mode in ("RGBA", "LA", "PA"):
        return image.getchannel("A").getextrema()[0] < 255
    if "transparency" in image.info:
        return image.convert("RGBA").getchannel("A").getextrema()[0] < 255
    return False


# ---- the files of a data set --------------------------------------------------------------------


def check_image_files(
    images: dict[int, dict],
    source: str,
    image_root: str,
    decode: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Problem]:
    """Yield what is wrong with the image files of a data set.

    Args:
        images: the json's image records by id.
        source: the json file, for the sentences.
        image_root: the folder that their `file_name`s are relative to.
        decode: whether to read every file, too, and not just look for it.
        workers: how many threads read.
        progress: is told the number of images read and that of all, from time to time.
    """
    if not os.path.isdir(image_root):
        text = f"image folder {image_root} of {source} does not exist: check the path (relative "
        yield Problem("image-missing", f"{text}paths start at {os.getcwd()}).")
        return
    present = []
    for record, path, similar in _look_for(images.values(), image_root):
        if path is not None:
            present.append((record, path))
            continue
        missing = os.path.join(image_root, record["file_name"])
        hint = "check the image folder and the file name in the json"
        if similar:
            hint = f"its folder has {similar}, so correct upper and lower case"
        text = f"{source}: image {record['id']}: {missing} does not exist: {hint}."
        yield Problem("image-missing", text, image_id=record["id"])
    if decode:
        yield from _decode(present, source, workers, progress)


def _look_for(
    records: Iterable[dict], image_root: str
) -> Iterator[tuple[dict, str | None, str | None]]:
    """For each record its file, or None and a name in the folder that differs in case alone."""
    listings: dict[str, frozenset[str]] = {}  # one look at a folder instead of one per image
    lower_case: dict[str, dict[str, str]] = {}
    second_looks = 0
    for record in records:
        path = os.path.join(image_root, record["file_name"])
        folder, name = os.path.split(path)
        if folder not in listings:
            listings[folder] = _listing(folder)
        if name in listings[folder]:
            yield record, path, None
            continue
        # The file system may take names for equal that are not, or not allow listing.
        second_looks += 1
        if second_looks <= _MAX_SECOND_LOOKS and os.path.isfile(path):
            yield record, path, None
            continue
        if folder not in lower_case:
            lower_case[folder] = {listed.lower(): listed for listed in listings[folder]}
        yield record, None, lower_case[folder].get(name.lower())


def _listing(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def _decode(
    present: list[tuple[dict, str]],
    source: str,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Problem]:
    def inspect(item: tuple[dict, str]) -> list[Finding]:
        record, path = item
        return inspect_image(path, record.get("width"), record.get("height"))

    for (record, _), findings in in_threads(inspect, present, workers, progress):
        for kind, severity, text in findings:
            where = f"{source}: image {record['id']}:"
            yield Problem(kind, f"{where} {text}.", severity, record["id"])


def in_threads(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Yield each item, in order, with the function's result for it, computed in threads.

    `progress` is told the number of items done and that of all, from time to time.
    """
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        for start in range(0, len(items), _BLOCK):
            block = items[start : start + _BLOCK]
            yield from zip(block, pool.map(function, block))
            if progress is not None:
                progress(start + len(block), len(items))


def unlisted_files(images: dict[int, dict], source: str, image_root: str) -> Iterator[Problem]:
    """Yield a note for each image file that the json does not list, in the folders that it uses."""
    used = defaultdict(set)
    for record in images.values():
        folder, name = os.path.split(os.path.join(image_root, record["file_name"]))
        used[os.path.normpath(folder)].add(name)
    for folder, names in used.items():
        for name in sorted(_listing(folder) - names):
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                text = f"{os.path.join(folder, name)} is not listed in {source}: it is not used."
                yield Problem("unlisted", text, "note")
