"""What a checkpoint file was trained with that its tensors do not show: heads and windows."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import CheckpointError
from .architecture import BACKBONE, CLASSIFIER, HEADS, Architecture, Shapes
from .layouts import OWN, Layout
from .published import HEADS_OF_S_1K, Published, find_published
from .shapes import expected_shapes

__all__ = ["STAMP", "Provenance", "class_names", "make_stamp", "trace"]

# Under this key a file of this project says what its tensors do not show.
STAMP = "iwin_d2"
_FORMAT = 1

_DEEP = 8  # levels of a config that are searched
_MANY_CLASSES = 20000  # from here on, a classifier is one of ImageNet-22K
_HEADS_IN_TEXT = re.compile(r"\bnum_heads\s*=\s*[\[(]([\d\s,]+)[\])]")
_WINDOW_IN_TEXT = re.compile(r"\bwindow_size\s*=\s*[\[(]?\s*(\d+)")


@dataclass(frozen=True)
class Provenance:
    """Where the weights in a file come from.

    Attributes:
        published: the published checkpoint that it is, by name and shapes.
        num_heads: attention heads of each stage that it was trained with; None for not known.
        reason: how they are known.
        window_size: likewise; None for not known.
        in_doubt: several head counts that such a model may have, where nothing tells which.
    """

    published: Published | None = None
    num_heads: tuple[int, ...] | None = None
    reason: str = ""
    window_size: int | None = None
    in_doubt: tuple[tuple[int, ...], ...] = ()


def trace(
    content: Any, path: str, layout: Layout, architecture: Architecture, shapes: Shapes
) -> Provenance:
    """Find out where a file's weights come from.

    What the file itself says wins over what is known of published files of its name, and that
    over what is known of all published models of its kind and size.

    Args:
        content: of the file.
        path: of the file.
        layout: the family that it belongs to.
        architecture: of its tensors.
        shapes: of its tensors, by this project's names.

    Raises:
        CheckpointError: a later version of this project has written it.
    """
    stamp = _read_stamp(content, path)
    published = find_published(str(stamp.get("published") or os.path.basename(path)))
    if published is not None and not _is_of(published, architecture, shapes):
        published = None
    heads, window = _configured(stamp, content)
    if published is not None:
        window = window or published.window_size
    if heads is not None and len(heads) == len(architecture.depths):
        return Provenance(published, heads, "as the file says", window)
    if published is not None:
        return Provenance(published, published.num_heads, f"as published {published.name}", window)
    return _by_kind(layout, architecture, shapes, window)


def make_stamp(
    num_heads: tuple[int, ...] | None, window_size: int | None, **others: Any
) -> dict[str, Any]:
    """What a file is to say under STAMP, so that `trace` finds it."""
    stamp = {"format": _FORMAT, "num_heads": num_heads and list(num_heads), **others}
    return {**stamp, "window_size": window_size}


def class_names(content: Any) -> dict[str, list[str]]:
    """The names of the classes, from this project's metadata or from OpenMMLab's.

    Returns:
        Lists of names by what Detectron2's metadata call them: thing_classes, those of objects, and
        stuff_classes, those of pixels; classes are those of a classifier. Empty where the file
        does not say.
    """
    kinds = ("thing_classes", "stuff_classes", "classes")
    found = {kind: _names(content, "metadata", kind) for kind in kinds}
    if not any(found.values()):
        weights = content.get("state_dict") if isinstance(content, Mapping) else None
        names = list(map(str, weights)) if isinstance(weights, Mapping) else []
        heads = {"decode_head.": "stuff_classes", "cls_head.": "classes"}
        kind = next(
            (heads[head] for head in heads if any(name.startswith(head) for name in names)),
            "thing_classes",
        )
        found[kind] = _names(content, "meta", "CLASSES")
    return {kind: names for kind, names in found.items() if names}


def _names(content: Any, part: str, key: str) -> list[str]:
    section = content.get(part) if isinstance(content, Mapping) else None
    names = section.get(key) if isinstance(section, Mapping) else None
    return [str(name) for name in names] if isinstance(names, (list, tuple)) else []


def _read_stamp(content: Any, path: str) -> Mapping[str, Any]:
    stamp = content.get(STAMP) if isinstance(content, Mapping) else None
    if not isinstance(stamp, Mapping):
        return {}
    if stamp.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path} was written by a newer iwin_d2 (its format is {stamp.get('format')}, this "
            f"version reads {_FORMAT}): update iwin_d2."
        )
    return stamp


def _is_of(published: Published, architecture: Architecture, shapes: Shapes) -> bool:
    """Whether tensors are those of a published checkpoint, as far as they are known of it.

    The heads for 22K classes are not looked at.
    """
    known = published.architecture
    expected = expected_shapes(known, last_depthwise=published.last_depthwise) or {}
    classes = known.num_classes or architecture.num_classes
    return replace(known, num_classes=classes) == architecture and (
        expected.items() <= shapes.items()
    )


def _configured(
    stamp: Mapping[str, Any], content: Any
) -> tuple[tuple[int, ...] | None, int | None]:
    """Heads and window as the file says them, each None where it does not."""
    heads, window = _numbers(stamp.get("num_heads")), _number(stamp.get("window_size"))
    if heads or not isinstance(content, Mapping):
        return heads, window
    meta = content.get("meta")
    text = meta.get("config") if isinstance(meta, Mapping) else None
    if isinstance(text, str):  # OpenMMLab's
        found, side = _HEADS_IN_TEXT.search(text), _WINDOW_IN_TEXT.search(text)
        heads = tuple(int(number) for number in re.findall(r"\d+", found[1])) if found else None
        return heads, int(side[1]) if side else None
    for key, value in _entries(content.get("config")):  # yacs's
        heads = heads or (_numbers(value) if str(key) == "NUM_HEADS" else None)
        window = window or (_number(value) if str(key) == "WINDOW_SIZE" else None)
    return heads, window


def _entries(node: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """All keys and values of nested mappings."""
    if isinstance(node, Mapping) and depth < _DEEP:
        for key, value in node.items():
            yield key, value
            yield from _entries(value, depth + 1)


def _numbers(value: Any) -> tuple[int, ...] | None:
    whole = isinstance(value, (list, tuple)) and all(type(number) is int for number in value)
    return tuple(value) if whole and value else None


def _number(value: Any) -> int | None:
    if isinstance(value, (list, tuple)) and value:
        value = value[-1]
    return value if type(value) is int else None


def _by_kind(
    layout: Layout, architecture: Architecture, shapes: Shapes, window: int | None
) -> Provenance:
    """What all published models of a kind and size have in common."""
    size, classes = architecture.size, architecture.num_classes
    # A backbone alone, and what was trained here or in Detectron2, can be anybody's.
    if size not in HEADS or layout is OWN or architecture.task == BACKBONE:
        return Provenance(window_size=window)
    kind = f"as all published models of {size}"
    if architecture.task not in (CLASSIFIER, "") or size != "Iwin-S":
        if size == "Iwin-S":
            kind = f"as every published {architecture.task} on {size}"
        return Provenance(None, HEADS[size], kind, window)
    if classes == 1000:
        kind = f"as the published ImageNet-1K classifiers of {size}"
        return Provenance(None, HEADS_OF_S_1K, kind, window)
    if classes is not None and classes >= _MANY_CLASSES:
        return Provenance(None, HEADS[size], f"as the ImageNet-22K classifier of {size}", window)
    return Provenance(window_size=window, in_doubt=(HEADS_OF_S_1K, HEADS[size]))
