"""What a model is, read off the names and shapes of its tensors."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .layouts import backbone_prefixes, is_backbone_name

__all__ = ["HEADS", "SIZES", "STAGES", "Architecture", "Shapes", "describe"]

Shapes = Mapping[str, tuple[int, ...]]

STAGES = 4  # of every Iwin that is built to its end
# Channels of the first stage and blocks of each; head counts leave no trace in shapes.
SIZES = {
    "Iwin-T": (96, (2, 2, 6, 2)),
    "Iwin-S": (96, (2, 2, 18, 2)),
    "Iwin-B": (128, (2, 2, 18, 2)),
    "Iwin-L": (192, (2, 2, 18, 2)),
}
HEADS = {
    "Iwin-T": (3, 6, 12, 24),
    "Iwin-S": (3, 6, 12, 24),
    "Iwin-B": (4, 8, 16, 32),
    "Iwin-L": (6, 12, 24, 48),
}

BACKBONE = "backbone"
CLASSIFIER = "image classifier"
MASK_RCNN, FASTER_RCNN = "Mask R-CNN", "Faster R-CNN"
CASCADE_MASK_RCNN, CASCADE_RCNN = "Cascade Mask R-CNN", "Cascade R-CNN"
SEGMENTER, SEMANTIC_FPN = "UPerNet", "Semantic FPN"
VIDEO = "video classifier"

# Tasks by regular expressions for names of theirs, the first that has all its names is it.
_TASKS = (
    (CASCADE_MASK_RCNN, (r"roi_heads\.box_predictor\.0\.", r"roi_heads\.mask_head\.")),
    (CASCADE_RCNN, (r"roi_heads\.box_predictor\.0\.",)),
    ("Panoptic FPN", (r"roi_heads\.box_predictor\.", r"sem_seg_head\.")),
    (MASK_RCNN, (r"roi_heads\.box_predictor\.", r"roi_heads\.mask_head\.")),
    (FASTER_RCNN, (r"roi_heads\.box_predictor\.",)),
    ("region proposal network", (r"proposal_generator\.",)),
    ("FCOS", (r"head\.cls_score\.", r"head\.ctrness\.")),
    ("RetinaNet", (r"head\.cls_score\.",)),
    (SEGMENTER, (r"sem_seg_head\.pyramid_pooling\.",)),
    (SEMANTIC_FPN, (r"sem_seg_head\.p\d\.",)),
    ("semantic segmenter", (r"(sem_seg_head|decode_head)\.",)),
    (VIDEO, (r".*time_embed$",)),
    (CLASSIFIER, (r"head\.weight$",)),
)
# Where the number of classes shows, and how many rows are for no class.
_CLASS_ROWS = (
    (re.compile(r"roi_heads\.box_predictor\.(?:0\.)?cls_score\.weight"), 1),
    (re.compile(r"sem_seg_head\.predictor\.weight"), 0),
    (re.compile(r"cls_head\.fc_cls\.weight"), 0),
    (re.compile(r"head\.weight"), 0),
)


@dataclass(frozen=True)
class Architecture:
    """A model in a few numbers.

    Attributes:
        task: what it is for: "Mask R-CNN", "image classifier", ...; "backbone" for an Iwin alone;
            "" for what is not known.
        embed_dim: channels of the first stage; None for a model without an Iwin backbone.
        depths: blocks of each stage.
        in_chans: channels of the images.
        num_classes: None where that does not show.
    """

    task: str
    embed_dim: int | None = None
    depths: tuple[int, ...] = ()
    in_chans: int | None = None
    num_classes: int | None = None

    @property
    def size(self) -> str:
        """The backbone's published size, else its numbers."""
        if self.embed_dim is None:
            return "no Iwin backbone"
        for name, size in SIZES.items():
            if size == (self.embed_dim, self.depths):
                return name
        return f"an Iwin of embed_dim={self.embed_dim}, depths={list(self.depths)}"

    def __str__(self) -> str:
        if self.embed_dim is None:
            return f"a {self.task or 'model'} without an Iwin backbone"
        if self.task == BACKBONE:
            return f"{self.size} alone"
        task = self.task or "model of another kind"
        article = "an" if task.startswith(("image", "FCOS")) else "a"
        classes = "" if self.num_classes is None else f" with {self.num_classes} classes"
        return f"{article} {task} on {self.size}{classes}"


def describe(shapes: Shapes) -> Architecture:
    """Find out what a model is.

    Args:
        shapes: by this project's names.
    """
    task = _task(shapes)
    num_classes = _num_classes(shapes)
    prefixes = backbone_prefixes(shapes)
    if not prefixes:
        return Architecture(task, num_classes=num_classes)
    prefix = prefixes[0]
    patches = shapes[f"{prefix}patch_embed.proj.weight"]
    if len(patches) < 2:  # of a damaged file
        return Architecture(task, num_classes=num_classes)
    if not task and all(is_backbone_name(name, prefix) for name in shapes):
        task = BACKBONE
    return Architecture(task, patches[0], _depths(shapes, prefix), patches[1], num_classes)


def _task(names: Collection[str]) -> str:
    for task, patterns in _TASKS:
        if all(any(re.match(pattern, name) for name in names) for pattern in patterns):
            return task
    return ""


def _num_classes(shapes: Shapes) -> int | None:
    for pattern, others in _CLASS_ROWS:
        for name, shape in shapes.items():
            if pattern.fullmatch(name) and shape:
                return shape[0] - others
    return None


def _depths(names: Collection[str], prefix: str) -> tuple[int, ...]:
    """Count the blocks of each stage."""
    block = re.compile(re.escape(prefix) + r"layers\.(\d{1,6})\.blocks\.(\d{1,6})\.")
    counts: dict[int, int] = {}
    for name in names:
        if match := block.match(name):
            stage, number = int(match[1]), int(match[2])
            counts[stage] = max(counts.get(stage, 0), number + 1)
    return tuple(counts[stage] for stage in sorted(counts))
