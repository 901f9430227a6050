"""The published checkpoints: their names, and what is known of the models in them.

The head counts are the reason for this table: they leave no trace in the tensors' shapes, and the
ImageNet-1K classifiers of size S were trained with others than all other models of that size.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .architecture import (
    CASCADE_MASK_RCNN,
    CLASSIFIER,
    HEADS,
    MASK_RCNN,
    SEGMENTER,
    SIZES,
    VIDEO,
    Architecture,
    Shapes,
    describe,
)
from .layouts import backbone_prefixes
from .shapes import expected_shapes

__all__ = ["HEADS_OF_S_1K", "PUBLISHED", "Published", "find_published", "nearest_published"]

HEADS_OF_S_1K = (3, 4, 8, 16)

# Size, window, image side in pixels.
_IMAGENET_1K = (
    ("tiny", 7, 224),
    ("small", 7, 224),
    ("small", 12, 384),
    ("small", 16, 512),
    ("small", 16, 1024),
    ("base", 7, 224),
    ("base", 12, 384),
    ("base", 16, 512),
    ("base", 16, 1024),
)
_IMAGENET_22K = (
    ("base", 7, 224),
    ("base", 12, 384),
    ("base", 16, 512),
    ("base", 16, 1024),
    ("large", 7, 224),
    ("large", 12, 384),
)
_COCO = (
    ("tiny", "mask_rcnn_1x", MASK_RCNN),
    ("tiny", "mask_rcnn_3x", MASK_RCNN),
    ("small", "mask_rcnn_1x", MASK_RCNN),
    ("small", "mask_rcnn_3x", MASK_RCNN),
    ("tiny", "cascade_mask_rcnn_1x", CASCADE_MASK_RCNN),
    ("tiny", "cascade_mask_rcnn_3x", CASCADE_MASK_RCNN),
    ("small", "cascade_mask_rcnn_3x", CASCADE_MASK_RCNN),
)
_ADE20K = ("tiny", "small", "base")
_KINETICS = ("tiny", "small")


@dataclass(frozen=True)
class Published:
    """A published checkpoint.

    Attributes:
        name: what `load_pretrained` takes; the file is called so, with .pth behind.
        architecture: of its model. The classes of ImageNet-22K are not recorded here (None).
        window_size: side of its windows.
        num_heads: of its stages.
        last_depthwise: whether its last stage has depthwise convolutions.
    """

    name: str
    architecture: Architecture
    window_size: int
    num_heads: tuple[int, ...]
    last_depthwise: bool = False

    @property
    def file_name(self) -> str:
        """The file's name at every address."""
        return f"{self.name}.pth"


def _table() -> Iterator[Published]:
    for size, window, side in _IMAGENET_1K:
        heads = HEADS_OF_S_1K if size == "small" else None
        yield _classifier(size, window, side, "", 1000, heads)
    for size, window, side in _IMAGENET_22K:
        yield _classifier(size, window, side, "_22k", None)
        yield _classifier(size, window, side, "_22kto1k", 1000)
    for size, kind, task in _COCO:
        yield _published(f"iwin_{size}_window7_{kind}_coco", size, task, 80)
    for size in _ADE20K:
        yield _published(f"iwin_{size}_patch4_window7_512_ade20k_1k", size, SEGMENTER, 150)
    for size in _KINETICS:
        yield _published(f"iwin_{size}_patch244_window77_kinetics400_1k", size, VIDEO, 400)


def _classifier(
    size: str, window: int, side: int, suffix: str, classes: int | None, heads=None
) -> Published:
    name = f"iwin_{size}_patch4_window{window}_{side}{suffix}"
    # A stage whose map is not larger than the window has no depthwise convolution.
    return _published(name, size, CLASSIFIER, classes, window, heads, side // 32 > window)


def _published(
    name: str,
    size: str,
    task: str,
    classes: int | None,
    window: int = 7,
    heads: tuple[int, ...] | None = None,
    last_depthwise: bool = False,
) -> Published:
    key = f"Iwin-{size[0].upper()}"
    architecture = Architecture(task, *SIZES[key], 3, classes)
    return Published(name, architecture, window, heads or HEADS[key], last_depthwise)


PUBLISHED = {published.name: published for published in _table()}


def find_published(name: str) -> Published | None:
    """The published checkpoint of a name or file name, also with a download's number or hash."""
    stem = re.sub(r"\.(pth|pt)$", "", name)
    return PUBLISHED.get(stem) or PUBLISHED.get(re.sub(r"([-_][0-9a-f]{8,}| ?\(\d+\))$", "", stem))


def nearest_published(shapes: Shapes, task: str = "") -> Published | None:
    """The published checkpoint with most tensors of these names and shapes; None if none has any.

    One for the same task, if there is one.

    Args:
        shapes: of a model or file, in this project's names.
        task: what it is to be for; "" for the task of that model.
    """
    wanted, task = _signature(shapes), task or describe(shapes).task
    same = [published for published in PUBLISHED.values() if published.architecture.task == task]
    best, best_score = None, 0.0
    for published in same or PUBLISHED.values():
        found = _published_signature(published)
        score = 2 * len(wanted & found) / max(len(wanted) + len(found), 1)
        if score > best_score:
            best, best_score = published, score
    return best


@functools.cache
def _published_signature(published: Published) -> frozenset:
    shapes = expected_shapes(published.architecture, last_depthwise=published.last_depthwise)
    return _signature(shapes or {})


def _signature(shapes: Shapes) -> frozenset:
    """Names and shapes, wherever the backbone lies."""
    prefix = next(iter(backbone_prefixes(shapes)), "")
    return frozenset((name.removeprefix(prefix), shape) for name, shape in shapes.items())
