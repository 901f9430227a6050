"""What is shown of predictions: a picture and records, of objects, segments or whole images."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..d2.evaluation import instances_to_coco_json
from ..errors import ConfigError
from ..modeling.segmentation_inference import predicted_labels
from .class_names import dataset_ids
from .classifier_predictor import ClassifierPredictor, ClassScore
from .drawing import draw_predictions, legible_scale
from .outputs import is_segmentation
from .predictor import Predictor
from .score_bars import draw_scores, enlarge
from .segment_drawing import OPACITY, draw_segments, segment_color, share_text
from .segment_legend import Entry, LegendGrid

__all__ = [
    "TOP",
    "ClassificationReport",
    "DetectionReport",
    "Report",
    "SegmentationReport",
    "Shown",
    "class_records",
    "make_report",
]

TOP = 5  # classes of an image that are shown
_THRESHOLD = 0.5
_MOST_ENTRIES = 40  # of a legend; models that have not learnt much find a bit of everything
_VIDEO_LINES = 5  # of a legend below a video

Names = Sequence[str] | None


class Shown(NamedTuple):
    """What is shown of an image.

    Attributes:
        picture: RGB, uint8; larger than the image if that is small.
        records: for a json file.
        labels: class numbers, integers [H, W] in pixels of the image; None of a detector.
    """

    picture: np.ndarray
    records: list[dict]
    labels: np.ndarray | None = None


class Report(Protocol):
    """Shows the outputs of a model; may be called in any thread."""

    def __call__(self, pixels: np.ndarray, output: Mapping, image_id: int, **more) -> Shown:
        """Show an output.

        Args:
            pixels: of the image, RGB, uint8 [H, W, 3].
            output: of the model for it, on the CPU.
            image_id: for the records.
            more: what else is to stand in the records.
        """


def make_report(
    predictor: Predictor | ClassifierPredictor,
    output: Mapping[str, Any],
    *,
    threshold: float | None = None,
    opacity: float | None = None,
    top: int | None = None,
    video: bool = False,
) -> Report:
    """Choose what to show by a model's output.

    Args:
        predictor: that made it; tells the classes.
        output: for one image.
        threshold: predictions of a lower score are left out, of a detector; 0.5 for None.
        opacity: of the colours of a segmentation; `OPACITY` for None.
        top: classes of an image that are shown, of a classifier; five for None.
        video: whether pictures are frames, which are all to have the same size.

    Raises:
        ConfigError: the output is of another kind, or an argument is not for this one.
    """
    if isinstance(predictor, ClassifierPredictor):
        for value, name in ((threshold, "--confidence-threshold"), (opacity, "--opacity")):
            if value is not None:
                raise ConfigError(f"{name} is not for classifiers: leave it out.")
        return ClassificationReport(predictor, TOP if top is None else top)
    if top is not None:
        raise ConfigError("--top is for classifiers: leave it out.")
    if not is_segmentation(output):
        if opacity is not None:
            raise ConfigError("--opacity is for semantic segmenters, but the model is a detector.")
        return DetectionReport(predictor, _THRESHOLD if threshold is None else threshold)
    if threshold is not None:
        raise ConfigError(
            "--confidence-threshold is for detectors, but the model is a semantic segmenter, which "
            "gives each pixel its likeliest class: leave it out."
        )
    opacity = OPACITY if opacity is None else opacity
    return SegmentationReport(predictor.class_names, opacity, video=video)


class DetectionReport:
    """Draws objects, and lists them in COCO's results format."""

    def __init__(self, predictor: Predictor, threshold: float):
        self._threshold = threshold
        self._class_names = predictor.class_names
        self._to_dataset_id = dataset_ids(predictor.metadata)

    def __call__(self, pixels: np.ndarray, output: Mapping, image_id: int, **more) -> Shown:
        instances = output["instances"]
        instances = instances[instances.scores >= self._threshold]
        scale = legible_scale(pixels)
        picture = draw_predictions(pixels, instances, self._class_names, scale)
        return Shown(picture, self._records(instances, image_id, more))

    def _records(self, instances, image_id: int, more: dict) -> list[dict]:
        """COCO results, with the data set's own category ids where they are known."""
        found = instances_to_coco_json(instances, image_id)
        for record in found:
            number = record["category_id"]
            record["category_id"] = self._to_dataset_id.get(number, number)
            record.update(more)
        return found


class SegmentationReport:
    """Draws a label map with a legend below; lists how much of the image each class takes."""

    def __init__(self, class_names: Names, opacity: float = OPACITY, *, video: bool = False):
        """Prepare to draw.

        Args:
            class_names: by class number; None where they are not known.
            opacity: of the colours.
            video: keep size and places of legends from picture to picture.
        """
        self._names = class_names
        self._opacity = opacity
        self._video = video
        self._grid_of_video = functools.cache(self._grid)

    @property
    def num_classes(self) -> int:
        """How many there are; 0 where that is not known."""
        return len(self._names or ())

    def __call__(self, pixels: np.ndarray, output: Mapping, image_id: int, **more) -> Shown:
        labels = predicted_labels(output).numpy()
        pixel_counts = np.bincount(labels.ravel())
        found = [c for c in np.argsort(-pixel_counts, kind="stable").tolist() if pixel_counts[c]]
        shares = {c: float(pixel_counts[c] / labels.size) for c in found}  # largest first
        drawn = draw_segments(pixels, labels, scale=legible_scale(pixels), opacity=self._opacity)
        legend = self._legend_of_frame if self._video else self._legend
        picture = np.concatenate([drawn, legend(shares, drawn.shape[1])])
        record = {
            "image_id": image_id,
            "height": labels.shape[0],
            "width": labels.shape[1],
            "classes": [
                {**self._class(c), "pixels": int(pixel_counts[c]), "share": round(shares[c], 6)}
                for c in found
            ],
            **more,
        }
        return Shown(picture, [record], labels)

    def _class(self, number: int) -> dict:
        known = self._names is not None and number < len(self._names)
        return {"class": number, **({"name": self._names[number]} if known else {})}

    def _name(self, number: int) -> str:
        return str(self._class(number).get("name", f"class {number}"))

    def _entry(self, number: int, share: float | None) -> Entry:
        value = share_text(share) if share is not None else ""
        return Entry(self._name(number), value, segment_color(number), share is None)

    def _legend(self, shares: dict[int, float], width: int) -> np.ndarray:
        """The classes that occur, the largest first."""
        entries = [self._entry(*item) for item in list(shares.items())[:_MOST_ENTRIES]]
        rest = list(shares.values())[_MOST_ENTRIES:]
        if rest:
            entries.append(Entry(f"{len(rest)} more", share_text(sum(rest)), (1.0, 1.0, 1.0)))
        return LegendGrid(width, [entry.name for entry in entries]).draw(entries)

    def _legend_of_frame(self, shares: dict[int, float], width: int) -> np.ndarray:
        """All classes at places of their own; if they are too many, the largest that occur."""
        grid, lines = self._grid_of_video(width)
        room = lines * grid.columns
        if 0 < self.num_classes <= room:
            numbers = range(self.num_classes)
        else:  # in the order of their numbers, so that they seldom change places
            numbers = sorted(list(shares)[:room])
        return grid.draw([self._entry(c, shares.get(c)) for c in numbers], lines)

    def _grid(self, width: int) -> tuple[LegendGrid, int]:
        """The grid below a video of this width, and how many lines of it."""
        grid = LegendGrid(width, self._names or ["class 000"])
        lines = grid.lines(self.num_classes) if self.num_classes else _VIDEO_LINES
        return grid, min(lines, _VIDEO_LINES)


class ClassificationReport:
    """Draws the classes of the highest scores below an image, and lists them."""

    def __init__(self, predictor: ClassifierPredictor, top: int = TOP):
        self._predictor, self._top = predictor, top

    def __call__(self, pixels: np.ndarray, output: Mapping, image_id: int, **more) -> Shown:
        found = self._predictor.top(output, self._top)
        picture = enlarge(pixels, legible_scale(pixels))
        picture = np.concatenate([picture, draw_scores(found, picture.shape[1])])
        return Shown(picture, [{"image_id": image_id, "classes": class_records(found), **more}])


def class_records(found: Sequence[ClassScore]) -> list[dict]:
    """Classes and their scores for a json file."""
    return [{"class": c.number, "name": c.name, "score": round(c.score, 6)} for c in found]
