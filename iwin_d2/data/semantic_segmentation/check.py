"""The check of a folder of images and one of label images: everything wrong, in one pass."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from PIL import Image

from ...errors import DataError
from ..image_check import in_threads, inspect_image
from ..problems import Problem
from .headers import header_findings
from .label_format import LabelFormat
from .label_summary import LabelSummary
from .labels import Finding, count_values, stored_values, value_findings
from .pairs import Folders, Pair, find_pairs

__all__ = ["FolderCheck"]

# With one of these, the values of a label file tell nothing.
_NO_VALUES = frozenset({"label-damaged", "label-format", "label-colours", "label-palette"})


@dataclass
class FolderCheck:
    """Looks through a data set, and counts what it holds on the way.

    Attributes:
        folders: where its files lie.
        form: what the values of its labels mean.
        names: the names of its classes.
        crop: (height, width) of the training's crop, to say which images are smaller; None: do not.
        summary: what was found, complete once `problems` has come to its end.
    """

    folders: Folders
    form: LabelFormat
    names: list[str]
    crop: tuple[int, int] | None = None
    summary: LabelSummary = field(init=False)

    def __post_init__(self):
        self.summary = LabelSummary(self.form, self.names)

    def problems(
        self,
        decode: bool = True,
        workers: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Problem]:
        """Yield everything that is wrong.

        Args:
            decode: whether to decode all images and labels, or only look at names and headers.
            workers: how many threads read.
            progress: is told the number of images read and that of all, from time to time.
        """
        pairs, problems = find_pairs(self.folders)
        yield from problems

        def inspect(pair: Pair) -> tuple:
            return self._inspect(pair, decode)

        for pair, (size, findings, counts) in in_threads(inspect, pairs, workers, progress):
            self.summary.add(size, counts)
            for kind, severity, text in findings:
                yield Problem(kind, f"{text}.", severity, pair.name)
        yield from self._small_images()
        if decode:
            yield from self._absent_classes()

    def _inspect(
        self, pair: Pair, decode: bool
    ) -> tuple[tuple[int, int] | None, list[Finding], dict]:
        """The size of an image, what is wrong with it and its labels, and their values' counts."""
        size, findings = header_findings(pair, self.form)
        if not decode:
            return size, findings, {}
        kinds = {kind for kind, _, _ in findings}
        if "image-damaged" not in kinds:
            findings += inspect_image(pair.image)
        counts: dict[int, int] = {}
        if not kinds & _NO_VALUES:
            try:
                with Image.open(pair.label) as label:
                    counts = count_values(stored_values(pair.label, label))
                findings += value_findings(pair.label, counts, self.form)
            except DataError as error:
                findings.append(("label-damaged", "error", str(error).rstrip(".")))
        return size, findings, counts

    def _small_images(self) -> Iterator[Problem]:
        if self.crop is None:
            return
        small = [s for s in self.summary.sizes if s[0] < self.crop[1] or s[1] < self.crop[0]]
        if small:
            smallest = min(small, key=lambda size: size[0] * size[1])
            text = (
                f"{len(small):,} of {self.summary.images:,} images are smaller than the crop "
                f"of {self.crop[1]}x{self.crop[0]} pixels (the smallest: {smallest[0]}x"
                f"{smallest[1]}): what is still smaller once resized is padded."
            )
            yield Problem("image-small", text, "note")

    def _absent_classes(self) -> Iterator[Problem]:
        """A warning for each class that no label has."""
        if not self.summary.values or self.form.num_classes is None:
            return
        readable = "" if self.summary.counted == self.summary.images else " that can be read"
        pixels = self.summary.class_pixels()
        for number in (number for number, count in enumerate(pixels) if not count):
            text = (
                f"no pixel of the labels{readable} in {self.folders.labels} is of class {number} "
                f"({self.names[number]}, value {self.form.file_values()[number]} in the files)"
            )
            yield Problem("class-absent", f"{text}{self._absence_hint(number)}.", "warning")

    def _absence_hint(self, number: int) -> str:
        """What a class that never occurs may come from."""
        form = self.form
        if form.label_values is not None or form.reduce_zero_label:
            return ""
        if number == 0:
            return (
                ": where 0 stands for no class, set reduce_zero_label=True and leave its name out "
                "of the class file"
            )
        if form.num_classes == 2 and self.summary.values.get(form.ignore_value):
            return (
                f": where {form.ignore_value} stands for it, set label_values={{0: 0, "
                f"{form.ignore_value}: 1}} and ignore_value to another number"
            )
        return ""
