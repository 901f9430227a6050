"""What a folder of label images holds: sizes, pixels of each class, pixels of none."""

from collections import Counter
from collections.abc import Mapping

from ..check_report import MAX_CLASSES, image_sizes
from .label_format import BAD, LabelFormat

__all__ = ["LabelSummary", "describe_label_summary"]

_IGNORED = -1  # no class


class LabelSummary:
    """Counts, image by image.

    Attributes:
        images: how many there are.
        counted: images whose labels can be read.
        sizes: (width, height) of those that can be read, in pixels.
        values: value in the label files -> number of pixels.
    """

    def __init__(self, form: LabelFormat, names: list[str]):
        self._form, self._names = form, names
        self.images = self.counted = 0
        self.sizes: list[tuple[int, int]] = []
        self.values: Counter[int] = Counter()
        self._images: Counter[int] = Counter()  # by value

    def add(self, size: tuple[int, int] | None, counts: Mapping[int, int]) -> None:
        """Count an image of (width, height) and its labels' values; None, {} where unknown."""
        self.images += 1
        self.counted += bool(counts)
        if size is not None:
            self.sizes.append(size)
        self.values.update(counts)
        self._images.update(counts.keys())

    def class_pixels(self) -> list[int]:
        """How many pixels each class has."""
        return self._by_class(self.values)

    def as_json(self) -> dict:
        """The summary for json.

        Returns:
            images, image_sizes (smallest, median and largest [width, height]), pixels, those
            ignored and those out_of_range, and classes: a list of {number, name, values, pixels,
            share (of the pixels that are not ignored), images}.
        """
        pixels, images = self.class_pixels(), self._by_class(self._images)
        table = self._form.table(_IGNORED, bits=16)
        counted = sum(pixels)
        values = [[] for _ in pixels]
        for value, number in enumerate(table.tolist()):
            if 0 <= number < len(values):
                values[number].append(value)
        return {
            "images": self.images,
            "image_sizes": image_sizes({"width": w, "height": h} for w, h in self.sizes),
            "pixels": self.values.total(),
            "ignored": sum(n for v, n in self.values.items() if table[v] == _IGNORED),
            "out_of_range": sum(n for v, n in self.values.items() if table[v] == BAD),
            "classes": [
                {
                    "number": number,
                    "name": name,
                    "values": values[number],
                    "pixels": pixels[number],
                    "share": pixels[number] / counted if counted else 0.0,
                    "images": images[number],
                }
                for number, name in enumerate(self._names)
            ],
        }

    def _by_class(self, counts: Mapping[int, int]) -> list[int]:
        """Add up what is counted by the values in the files."""
        table = self._form.table(_IGNORED, bits=16)
        found = Counter()
        for value, count in counts.items():
            found[int(table[value])] += count
        return [found[number] for number in range(len(self._names))]


def describe_label_summary(summary: dict, all_classes: bool = False) -> list[str]:
    """The lines of a report on what `LabelSummary.as_json` returns."""
    pixels = summary["pixels"]
    lines = [f"{summary['images']:,} images with labels, {pixels:,} pixels"]
    if pixels:
        shares = [f"{100 * summary['ignored'] / pixels:.2f} % of them ignored"]
        if summary["out_of_range"]:
            shares.append(f"{100 * summary['out_of_range'] / pixels:.2f} % out of range")
        lines[0] += f", {', '.join(shares)}"
    sizes = [f"{name} {w}x{h}" for name, (w, h) in summary["image_sizes"].items()]
    if sizes:
        lines.append(f"image sizes: {', '.join(sizes)}")
    return [*lines, *(_class_table(summary["classes"], all_classes) if pixels else [])]


def _class_table(classes: list[dict], all_classes: bool) -> list[str]:
    shown = classes if all_classes else classes[:MAX_CLASSES]
    width = max([5, *(min(len(c["name"]), 40) for c in shown)])
    lines = [
        f"{len(classes):,} classes:",
        f"  {'number':>6}  {'value':>6}  {'class':{width}}  {'pixels':>8}   images",
    ]
    for c in shown:
        value = "+".join(map(str, c["values"][:3])) + ("+" if len(c["values"]) > 3 else "")
        lines.append(
            f"  {c['number']:>6}  {value:>6}  {c['name'][:40]:{width}}  "
            f"{100 * c['share']:>6.2f} %  {c['images']:>7,}"
        )
    if len(classes) > len(shown):
        lines.append(f"  ... and {len(classes) - len(shown):,} more (--all shows them)")
    return lines
