"""What tools/check_dataset.py shows: the findings, grouped, and what the data set holds."""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from .annotation_check import is_id
from .problems import KINDS, Problem

__all__ = [
    "MAX_CLASSES",
    "Findings",
    "describe_findings",
    "describe_summary",
    "image_sizes",
    "summarise",
]

_SEVERITIES = {"error": "Errors", "warning": "Warnings", "note": "Notes"}
# COCO's own limits between small, medium and large objects, in pixels of area.
_SMALL, _MEDIUM = 32**2, 96**2
MAX_CLASSES = 40  # lines of the table of classes


@dataclass
class Findings:
    """Problems by severity and kind: all are counted, the first few of each are kept.

    Attributes:
        limit: how many of a kind are kept; None: all.
    """

    limit: int | None = None
    counts: Counter = field(default_factory=Counter)
    kept: dict[tuple[str, str], list[Problem]] = field(default_factory=lambda: defaultdict(list))

    def add(self, problems: Iterable[Problem]) -> None:
        """Take problems one after the other."""
        for problem in problems:
            key = (problem.severity, problem.kind)
            self.counts[key] += 1
            if self.limit is None or len(self.kept[key]) < self.limit:
                self.kept[key].append(problem)

    def total(self, severity: str) -> int:
        """How many problems of a severity there are."""
        return sum(count for (given, _), count in self.counts.items() if given == severity)

    def as_json(self) -> list[dict]:
        """The problems that were kept, for json."""
        return [asdict(problem) for problems in self.kept.values() for problem in problems]


def describe_findings(findings: Findings, limit: int | None = 5, source: str = "") -> list[str]:
    """The lines of a report: of each severity each kind, its count and its first `limit` cases.

    The name of the json file, `source`, is left out where it begins a sentence.
    """
    lines = []
    for severity, title in _SEVERITIES.items():
        if findings.total(severity):
            lines += [f"{title}: {findings.total(severity):,}", ""]
        for kind, meaning in KINDS.items():
            count = findings.counts[severity, kind]
            if not count:
                continue
            lines.append(f"  {kind} ({meaning}): {count:,}")
            shown = findings.kept[severity, kind][:limit]
            lines += [f"    {problem.message.removeprefix(f'{source}: ')}" for problem in shown]
            if count > len(shown):
                lines.append(f"    ... and {count - len(shown):,} more (--all shows them)")
            lines.append("")
    return [*lines, _verdict(findings)]


def _verdict(findings: Findings) -> str:
    errors, warnings = findings.total("error"), findings.total("warning")
    counts = ", ".join(
        f"{count:,} {word}{'' if count == 1 else 's'}"
        for word, count in (("error", errors), ("warning", warnings))
        if count
    )
    if errors:
        return f"Result: {counts}. Training would stop at the errors."
    return f"Result: {counts or 'no problems'}. Training takes this data set."


# ---- what the data set holds --------------------------------------------------------------------


def summarise(data: dict) -> dict:
    """Count what a parsed COCO json holds; records that are broken are passed over.

    Returns:
        a dict for json, with images, images_without_objects, annotations, crowds, masks
        (polygons, rle, none), object_sizes (small, medium, large: by COCO's limits, of boxes),
        image_sizes (smallest, median and largest [width, height]), and classes: a list of
        {id, name, objects, images}.
    """
    images = {r["id"]: r for r in _records(data, "images", ("id",))}
    annotations = list(_records(data, "annotations", ("image_id", "category_id")))
    objects = [record for record in annotations if record.get("iscrowd", 0) == 0]
    per_class, images_of = Counter(), defaultdict(set)
    for record in objects:
        per_class[record["category_id"]] += 1
        images_of[record["category_id"]].add(record["image_id"])
    with_objects = {record["image_id"] for record in objects}
    return {
        "images": len(images),
        "images_without_objects": len(images.keys() - with_objects),
        "annotations": len(annotations),
        "crowds": len(annotations) - len(objects),
        "masks": dict(Counter(map(_mask_kind, objects))),
        "object_sizes": dict(Counter(map(_object_size, objects))),
        "image_sizes": image_sizes(images.values()),
        "classes": [
            {
                "id": record["id"],
                "name": str(record.get("name")),
                "objects": per_class[record["id"]],
                "images": len(images_of[record["id"]]),
            }
            for record in sorted(_records(data, "categories", ("id",)), key=lambda r: r["id"])
        ],
    }


def _records(data: dict, key: str, ids: tuple[str, ...]) -> Iterable[dict]:
    """The records of a list whose ids are whole numbers."""
    records = data.get(key) if isinstance(data, dict) else None
    for record in records if isinstance(records, list) else ():
        if isinstance(record, dict) and all(is_id(record.get(name)) for name in ids):
            yield record


def _mask_kind(record: dict) -> str:
    segmentation = record.get("segmentation")
    if not segmentation:
        return "none"
    return "rle" if isinstance(segmentation, dict) else "polygons"


def _object_size(record: dict) -> str:
    try:
        _, _, width, height = record["bbox"]
        area = float(width) * float(height)
    except (KeyError, TypeError, ValueError, OverflowError):
        return "unknown"
    if not 0 <= area < math.inf:
        return "unknown"
    return "small" if area < _SMALL else "medium" if area < _MEDIUM else "large"


def image_sizes(images: Iterable[dict]) -> dict[str, list[int]]:
    """The smallest, median and largest [width, height] of records, by their area."""
    sizes = [(r.get("width"), r.get("height")) for r in images]
    sizes = sorted((s for s in sizes if all(map(is_id, s))), key=lambda size: size[0] * size[1])
    if not sizes:
        return {}
    median = statistics.median_low(range(len(sizes)))
    picked = {"smallest": sizes[0], "median": sizes[median], "largest": sizes[-1]}
    return {name: list(size) for name, size in picked.items()}


def describe_summary(summary: dict, all_classes: bool = False) -> list[str]:
    """The lines of a report on what `summarise` returns."""
    lines = [
        f"{summary['images']:,} images, {summary['images_without_objects']:,} of them without "
        "objects",
        f"{summary['annotations']:,} annotations, {summary['crowds']:,} of them crowds",
    ]
    for title, key, order in (
        ("masks", "masks", ("polygons", "rle", "none")),
        ("objects by the area of their box", "object_sizes", ("small", "medium", "large")),
    ):
        counts = [f"{summary[key][name]:,} {name}" for name in order if name in summary[key]]
        if counts:
            lines.append(f"{title}: {', '.join(counts)}")
    sizes = [f"{name} {w}x{h}" for name, (w, h) in summary["image_sizes"].items()]
    if sizes:
        lines.append(f"image sizes: {', '.join(sizes)}")
    return [*lines, *_class_table(summary["classes"], all_classes)]


def _class_table(classes: list[dict], all_classes: bool) -> list[str]:
    shown = classes if all_classes else classes[:MAX_CLASSES]
    width = max([5, *(min(len(c["name"]), 40) for c in shown)])
    lines = [f"{len(classes):,} classes:", f"  {'id':>6}  {'class':{width}}  objects   images"]
    lines += [
        f"  {c['id']:>6}  {c['name'][:40]:{width}}  {c['objects']:>7,}  {c['images']:>7,}"
        for c in shown
    ]
    if len(classes) > len(shown):
        lines.append(f"  ... and {len(classes) - len(shown):,} more (--all shows them)")
    return lines
