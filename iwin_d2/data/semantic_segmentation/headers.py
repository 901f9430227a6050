"""What the headers of an image and its label image tell, without decoding them."""

from collections.abc import Mapping
from typing import Any

from PIL import Image

from ..image_check import TURNED, diagnose_image, exif_orientation
from .label_format import LabelFormat
from .labels import Finding, label_finding, mode_finding
from .pairs import Pair

__all__ = ["describe_problem", "header_findings"]


def header_findings(
    pair: Pair, form: LabelFormat, brief: bool = False
) -> tuple[tuple[int, int] | None, list[Finding]]:
    """Read the headers of an image and of its label image.

    Args:
        pair: the files.
        form: what the values of the labels mean.
        brief: whether to look at no pixels for the sake of a better sentence.

    Returns:
        the image's width and height in pixels after its EXIF orientation is applied, None where
        they cannot be read, and everything that is wrong: kind, severity, sentence.
    """
    findings: list[Finding | None] = []
    stored = upright = None
    try:
        with Image.open(pair.image) as image:
            stored, orientation = image.size, exif_orientation(image)
        upright = stored[::-1] if orientation in TURNED else stored
    except MemoryError:
        raise
    except Exception:  # the image's own check says what is wrong
        text = diagnose_image(pair.image, None, None) or f"{pair.image} cannot be read"
        findings.append(("image-damaged", "error", text))
    try:
        with Image.open(pair.label) as label:
            findings.append(mode_finding(pair.label, label, form, brief))
            if stored is not None:
                findings.append(_size_finding(pair, label.size, stored, orientation))
    except MemoryError:
        raise
    except Exception:
        findings.append(label_finding(pair.label))
    return upright, [finding for finding in findings if finding]


def _size_finding(
    pair: Pair, label: tuple[int, int], stored: tuple[int, int], orientation: int
) -> Finding | None:
    """Compare the size of a label image with that of its image, as stored and when upright."""
    upright = stored[::-1] if orientation in TURNED else stored
    if label == upright and (orientation == 1 or label != stored):
        return None
    if label == upright:
        text = (
            f"{pair.image} has an EXIF orientation ({orientation}) and is trained the way viewers "
            f"show it: check that {pair.label} is turned likewise"
        )
        return "label-orientation", "warning", text
    said = (
        f"{pair.label} is {label[0]}x{label[1]} pixels, but its image {pair.image} "
        f"{upright[0]}x{upright[1]}"
    )
    if label == stored:
        text = (
            f"{said} once its EXIF orientation is applied: turn the labels, or, where they were "
            "drawn on the unturned picture, remove the orientation tag from the image"
        )
        return "label-orientation", "error", text
    swapped = ", width and height swapped" if label == upright[::-1] else ""
    text = (
        f"{said}{swapped}: give both the same size (where labels are resized, by the nearest pixel)"
    )
    return "label-size", "error", text


def describe_problem(record: Mapping[str, Any]) -> str:
    """The sentence, without its full stop, on a record that has a "problem"."""
    pair = Pair(str(record["image_id"]), record["file_name"], record["sem_seg_file_name"])
    _, findings = header_findings(pair, LabelFormat.of_record(record))
    errors = [text for _, severity, text in findings if severity == "error"]
    return errors[0] if errors else record["problem"]
