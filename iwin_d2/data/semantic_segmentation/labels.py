"""Reading label images, and saying what keeps one from being read the way it was meant."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from ...errors import DataError
from ..image_check import exif_orientation
from .label_format import BAD, LabelFormat

__all__ = ["label_finding", "mode_finding", "read_label", "read_record_label", "value_findings"]

# Pillow's modes of one number a pixel.
_INDEX_MODES = frozenset({"1", "L", "I", "I;16", "I;16B", "I;16L", "I;16N"})
_LOSSY = frozenset({"JPEG", "MPO", "JPEG2000"})
# Pillow spreads grey values of 2 and 4 bits over 0 to 255.
_SPREAD = {"L;2": 85, "L;4": 17}
_MOST_COLOURS = 4096  # more of them, and a label file is a picture
_IGNORED = -1  # no class

Finding = tuple[str, str, str]  # kind, severity, the sentence without its full stop


def read_label(
    path: str | os.PathLike, form: LabelFormat | None = None, ignored: int | None = None
) -> np.ndarray:
    """Read a label image as class numbers.

    Args:
        path: an image file of one number a pixel, of 1 to 16 bits (or 32, of which 16 are used).
        form: what the numbers mean; None: LabelFormat().
        ignored: the number that ignored pixels get; None: `form.ignore_value`.

    Returns:
        uint8 [H, W]; int32 where the numbers ask for it.

    Raises:
        DataError: the file is missing or damaged, holds colours or a palette instead of class
            numbers, is of a lossy format, or has values out of range.
    """
    form = LabelFormat() if form is None else form
    with _opened(path) as image:
        finding = mode_finding(path, image, form)
        if finding:
            raise DataError(f"{finding[2]}.")
        values = stored_values(path, image)
    labels = to_classes(values, form, ignored)
    if labels is None:
        _, _, text = next(value_findings(path, count_values(values), form))
        raise DataError(f"{text}.")
    return labels


def read_record_label(record: Mapping[str, Any], ignored: int | None = None) -> np.ndarray:
    """Read the label image of a record of a data set, in the format that the record tells.

    Arguments, results and errors are those of `read_label`.
    """
    return read_label(record["sem_seg_file_name"], LabelFormat.of_record(record), ignored)


def to_classes(
    values: np.ndarray, form: LabelFormat, ignored: int | None = None
) -> np.ndarray | None:
    """Turn the values of a file into class numbers; None where one means nothing.

    Args:
        values: uint8 or uint16 [H, W].
        form: their meaning.
        ignored: as for `read_label`.
    """
    table = form.table(ignored, bits=8 * values.itemsize)
    known = table != BAD
    small = table.min(where=known, initial=0) >= 0 and table.max(where=known, initial=0) <= 255
    labels = table[values]
    if not known.all() and (labels == BAD).any():
        return None
    return labels.astype(np.uint8) if small else labels


def count_values(values: np.ndarray) -> dict[int, int]:
    """How many pixels of a uint8 or uint16 array have each of its values."""
    counts = np.bincount(values.ravel(), minlength=256)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def stored_values(path: str | os.PathLike, image: Image.Image) -> np.ndarray:
    """The numbers of an open image of one number a pixel: uint8 or uint16 [H, W].

    Raises:
        DataError: the file is damaged, or has numbers beyond 16 bits.
    """
    spread = next((_SPREAD[t[3]] for t in image.tile if t[3] in _SPREAD), 1)
    try:
        values = np.asarray(image)
    except MemoryError:
        raise
    except Exception as error:  # decoders of damaged files raise whatever they come across
        raise _damaged(path, error) from error
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.dtype == np.uint8:
        return values // spread if spread > 1 else values
    least, most = int(values.min()), int(values.max())
    if least < 0 or most > 2**16 - 1:
        odd = least if least < 0 else most
        raise DataError(
            f"{path} has the label {odd}: labels are numbers from 0 to {2**16 - 1}; correct it, or "
            "check that it is a label file."
        )
    return values.astype(np.uint16)


def label_finding(path: str | os.PathLike) -> Finding | None:
    """What keeps a label file from being opened, None if nothing does."""
    try:
        with _opened(path):
            return None
    except DataError as error:
        return "label-damaged", "error", str(error).rstrip(".")


# ---- what is wrong ------------------------------------------------------------------------------


def mode_finding(
    path: str | os.PathLike, image: Image.Image, form: LabelFormat, brief: bool = False
) -> Finding | None:
    """What an open image file is instead of a label image, by its header; None for a label image.

    Unless it is to be `brief`, the pixels are looked at where they help the sentence.
    """
    if image.format in _LOSSY:
        text = (
            f"{path} is a {image.format.replace('MPO', 'JPEG')} file, whose compression changes "
            "labels: save the labels as PNG from where they come from"
        )
        return "label-format", "error", text
    if image.mode == "P" and not form.accept_palette:
        return "label-palette", "error", _palette_sentence(path, image, form, brief)
    if image.mode == "F":
        text = f"{path} holds floating-point numbers: save class numbers as PNG of 8 or 16 bits"
        return "label-format", "error", text
    if image.mode not in _INDEX_MODES and image.mode != "P":
        return "label-colours", "error", _colour_sentence(path, image, brief)
    if exif_orientation(image) != 1:
        text = (
            f"{path} has an EXIF orientation, which labels are read without: turn its pixels, and "
            "remove the tag"
        )
        return "label-orientation", "error", text
    return None


def _palette_sentence(
    path: str | os.PathLike, image: Image.Image, form: LabelFormat, brief: bool
) -> str:
    text = f"{path} is a palette file, where class numbers are expected"
    choice = (
        "if they are the classes, as in exports of labelme and in Pascal VOC, set "
        "dataset.accept_palette=True (of register_folder), else save class numbers without a "
        "palette"
    )
    try:
        values = {} if brief else count_values(stored_values(path, image))
    except DataError:
        values = {}
    if not values:
        return f"{text}: {choice.replace('they', 'the numbers of its colours')}"
    known = form.table() != BAD
    numbers = [str(value) for value in values]
    shown = ", ".join(numbers[:8]) + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")
    fits = "would" if all(known[value] for value in values) else "would not"
    return (
        f"{text}; its pixels are the colours number {shown} of its palette, which as classes "
        f"{fits} be in range: {choice}"
    )


def _colour_sentence(path: str | os.PathLike, image: Image.Image, brief: bool) -> str:
    """Which of the files with several channels it is."""
    mode = image.mode
    text = f"{path} is {'an' if mode[0] in 'RLH' else 'a'} {mode} file, where one class number a "
    text += "pixel is expected"
    try:
        # Where it is damaged, it is no label file anyhow.
        colours = [] if brief else image.convert("RGB").getcolors(_MOST_COLOURS)
    except Exception:
        colours = []
    if colours == []:
        return f"{text}: save class numbers as PNG of one channel"
    if colours is None:
        return f"{text}; it looks like a photograph: check that this is the folder of the labels"
    if all(red == green == blue for _, (red, green, blue) in colours):
        return (
            f"{text}; its colour channels are equal, so one of them may hold the class numbers: "
            "save that one alone (mode L)"
        )
    colours.sort(reverse=True)
    shown = ", ".join(f"{colour} in {count:,} pixels" for count, colour in colours[:3])
    rest = f" and {len(colours) - 3} more" if len(colours) > 3 else ""
    return (
        f"{text}; it has the colours {shown}{rest}: where colours stand for classes, write the "
        "number of the class instead of its colour"
    )


def value_findings(
    path: str | os.PathLike, counts: Mapping[int, int], form: LabelFormat
) -> Iterator[Finding]:
    """Yield what is wrong with the values of a label file.

    Args:
        path: the file.
        counts: value -> number of pixels.
        form: what the values mean.
    """
    bits = 8 if max(counts, default=0) < 256 else 16
    table = form.table(ignored=_IGNORED, bits=bits)
    bad = {value: count for value, count in counts.items() if table[value] == BAD}
    if bad:
        yield "label-values", "error", _range_sentence(path, bad, counts, form)
    elif all(table[value] == _IGNORED for value in counts):
        text = f"{path} has ignored pixels only: nothing is learned from it"
        yield "label-empty", "warning", text


def _range_sentence(
    path: str | os.PathLike, bad: dict[int, int], counts: Mapping[int, int], form: LabelFormat
) -> str:
    listed = [f"{value} in {_pixels(count)}" for value, count in bad.items()]
    shown = ", ".join(listed[:5])
    if len(bad) > 5:
        shown += f" and {len(bad) - 5} more values"
    number = "a label" if len(bad) == 1 else "labels"
    hint = "correct the labels, or the class file and the settings of the data set"
    if form.label_values is None and form.num_classes is not None and not form.reduce_zero_label:
        if list(bad) == [form.num_classes]:
            hint = "where classes count from 1 and 0 means no class, set reduce_zero_label=True"
        elif len(bad) == 1:
            hint += f" (where {next(iter(bad))} means no class: ignore_value={next(iter(bad))})"
    return f"{path} has {number} out of range: {shown} ({form.describe()}): {hint}"


def _pixels(count: int) -> str:
    return f"{count:,} pixel{'' if count == 1 else 's'}"


def _opened(path: str | os.PathLike) -> Image.Image:
    """Open an image file; a DataError says what keeps it from being opened."""
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise DataError(f"the label file {path} does not exist: check the label folder.") from None
    except Image.UnidentifiedImageError:
        empty = os.path.isfile(path) and os.path.getsize(path) == 0
        what = "empty (0 bytes)" if empty else "not an image file"
        raise DataError(f"the label file {path} is {what}: copy it again.") from None
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: str | os.PathLike, error: Exception) -> DataError:
    if isinstance(error, OSError) and error.strerror:
        text = f"cannot be read ({error.strerror}): correct the path, or its permissions"
    elif isinstance(error, Image.DecompressionBombError):
        text = f"is too large to be read safely: {str(error).rstrip('.')}"
    else:
        text = f"is truncated or damaged ({error}): copy it again"
    return DataError(f"the label file {path} {text}.")
