"""Predictions on folders of images and on videos: drawn, and as COCO results."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from ..d2.evaluation import instances_to_coco_json
from ..errors import ConfigError, DataError
from ..files import atomic_write
from .class_names import dataset_ids
from .drawing import draw_predictions, legible_scale
from .images import read_rgb
from .pipeline import Progress, ordered_map
from .predictor import Predictor
from .video import VIDEO_ENDINGS, Frame, VideoReader, check_video_output, write_to

__all__ = [
    "Summary",
    "check_no_input_overwritten",
    "find_images",
    "picture_names",
    "predict_files",
    "predict_video",
    "video_output",
]


@dataclass
class Summary:
    """What became of a run.

    Attributes:
        images: images or frames that were predicted.
        predictions: on all of them together.
        speed: images a second, from the first reading to the last writing.
        problems: a sentence for each image that was left out, or for the damage in a video.
    """

    images: int = 0
    predictions: int = 0
    speed: float = 0.0
    problems: list[str] = field(default_factory=list)


def predict_files(
    predictor: Predictor,
    paths: Sequence[Path],
    output: Path,
    *,
    threshold: float = 0.5,
    batch_size: int = 1,
    workers: int = 2,
) -> Summary:
    """Predict files, draw each into `output`, write predictions.json there.

    Pictures of small images are enlarged; predictions.json is in pixels of the file, its image_id
    counts the paths from 1. It is written whole, at the end, or not at all.

    Args:
        predictor: of images.
        paths: the files; those that cannot be read are skipped.
        output: an existing folder.
        threshold: predictions with a lower score are left out.
        batch_size: the most images in one pass of the model; does not change predictions.
        workers: threads that read images, and as many that draw; 0 for none.

    Raises:
        DataError: `output` cannot be written to.
    """
    summary, progress = Summary(), Progress("images", len(paths))
    names, reporter = picture_names(paths), _Reporter(predictor, threshold)

    def load(number: int) -> tuple[int, dict | DataError]:
        try:
            return number, predictor.prepare(paths[number - 1])
        except DataError as error:
            return number, error

    def readable() -> Iterator[tuple[int, dict]]:
        numbers = range(1, len(paths) + 1)
        for number, model_input in ordered_map(load, numbers, workers, batch_size + workers):
            if isinstance(model_input, DataError):
                summary.problems.append(model_input.sentence)
                progress.step()
            else:
                yield number, model_input

    def report(predicted: tuple) -> list[dict] | DataError:
        (number, _), prediction = predicted
        path = paths[number - 1]
        try:
            # Once more: in the size of the file, waiting images would take much memory.
            pixels = read_rgb(path)
        except DataError as error:
            return error
        instances = reporter.confident(prediction)
        _write_picture(reporter.draw(pixels, instances), output / names[number - 1])
        return reporter.records(instances, number, file_name=str(path))

    predicted = predictor.predict_stream(readable(), batch_size, lambda item: item[1])
    with _results_file(output / "predictions.json") as results:
        for records in ordered_map(report, predicted, workers, 2 * workers):
            progress.step()
            if isinstance(records, DataError):
                summary.problems.append(records.sentence)
                continue
            results.add(records)
            summary.images += 1
    summary.predictions, summary.speed = results.count, progress.speed()
    return summary


def predict_video(
    predictor: Predictor,
    path: Path,
    output: Path,
    *,
    results_file: Path | None = None,
    threshold: float = 0.5,
    batch_size: int = 1,
    workers: int = 2,
) -> Summary:
    """Predict the frames of a video and write them, drawn on, as a video without sound.

    Frames keep their times, a class its colour. Small videos are enlarged as pictures are. Both
    files are written whole or not at all; of a video that is damaged further on, the frames before
    the damage, and the summary says so.

    Args:
        predictor: of images.
        path: the video.
        output: the video to write, .mp4, .mov or .mkv.
        results_file: a json to write: COCO results whose image_id counts the frames from 1, with
            the "time" of the frame in seconds; boxes and masks in pixels of the video.
        threshold: predictions with a lower score are left out.
        batch_size: the most frames in one pass of the model; does not change predictions.
        workers: threads that prepare frames, and as many that draw; 0 for none.

    Raises:
        ConfigError: `output` has another ending.
        DataError: the video cannot be read at all, or a file cannot be written.
    """
    check_video_output(output)
    reporter = _Reporter(predictor, threshold)

    def load(numbered: tuple[int, Frame]) -> tuple[int, Frame, dict]:
        number, frame = numbered
        return number, frame, predictor.prepare(frame.pixels, array_format="RGB")

    def report(predicted: tuple) -> tuple[np.ndarray, Frame, list[dict]]:
        (number, frame, _), prediction = predicted
        instances = reporter.confident(prediction)
        picture = reporter.draw(frame.pixels, instances)
        return picture, frame, reporter.records(instances, number, time=float(frame.time))

    with (
        VideoReader(path) as video,
        _results_file(results_file) as results,
        write_to(output, video.rate, video.pixel_aspect) as writer,
    ):
        progress = Progress("frames", video.num_frames)
        frames = enumerate(video, start=1)
        loaded = ordered_map(load, frames, workers, batch_size + workers)
        predicted = predictor.predict_stream(loaded, batch_size, lambda item: item[2])
        for picture, frame, records in ordered_map(report, predicted, workers, 2 * workers):
            writer.add(picture, frame.time)
            results.add(records)
            progress.step()
    problems = [video.problem] if video.problem else []
    return Summary(progress.count, results.count, progress.speed(), problems)


class _Reporter:
    """Makes pictures and records of predictions."""

    def __init__(self, predictor: Predictor, threshold: float):
        self._threshold = threshold
        self._class_names = predictor.class_names
        self._to_dataset_id = dataset_ids(predictor.metadata)

    def confident(self, prediction: dict):
        """The Instances that are to be shown."""
        instances = prediction["instances"]
        return instances[instances.scores >= self._threshold]

    def draw(self, pixels: np.ndarray, instances) -> np.ndarray:
        """The picture, RGB; enlarged if it is small."""
        return draw_predictions(pixels, instances, self._class_names, legible_scale(pixels))

    def records(self, instances, image_id: int, **more) -> list[dict]:
        """COCO results, with the data set's own category ids where they are known."""
        found = instances_to_coco_json(instances, image_id)
        for record in found:
            number = record["category_id"]
            record["category_id"] = self._to_dataset_id.get(number, number)
            record.update(more)
        return found


class _Results:
    """A json list that grows on the disk, not in memory."""

    def __init__(self, file: IO | None, path: Path | None):
        self._file = file
        self._path = path
        self.count = 0

    def add(self, records: list[dict]) -> None:
        for record in records:
            self._write(("[\n" if self.count == 0 else ",\n") + json.dumps(record))
            self.count += 1

    def finish(self) -> None:
        self._write("[]\n" if self.count == 0 else "\n]\n")

    def _write(self, text: str) -> None:
        if self._file is not None:
            with _sentence_if_not_written(self._path):
                self._file.write(text)


@contextmanager
def _results_file(path: Path | None) -> Iterator[_Results]:
    """A json file of records, which appears when the block ends without an error; None for none."""
    if path is None:
        yield _Results(None, None)
        return
    with _sentence_if_not_written(path), atomic_write(path, "w") as file:
        results = _Results(file, path)
        yield results
        results.finish()


def _write_picture(image: np.ndarray, path: Path) -> None:
    with _sentence_if_not_written(path), atomic_write(path) as file:
        # Packed a few percent less tightly than by default, in a third of the time.
        Image.fromarray(image).save(file, format="PNG", compress_level=3)


@contextmanager
def _sentence_if_not_written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror or error}): free some space, or set "
            "--output to another place."
        ) from error


def video_output(source: Path, output: Path) -> Path:
    """The file to write for a video: `output`, or `<stem>.mp4` in it where it names a folder.

    Raises:
        ConfigError: a file of another kind, or the source itself.
    """
    if output.is_dir() or not output.suffix:
        output = output / f"{source.stem}.mp4"
    check_video_output(output)
    if output.resolve() == source.resolve():
        raise ConfigError(f"{output} is the input itself: set --output to another file.")
    return output


def find_images(inputs: Iterable[str]) -> list[Path]:
    """The files among the inputs and the image files in the folders among them, each once.

    Raises:
        DataError: for an input that does not exist or is a video, and for a folder without images.
    """
    Image.init()
    endings = set(Image.EXTENSION) - VIDEO_ENDINGS
    paths: dict[Path, Path] = {}  # by resolved path
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in endings and p.is_file())
            if not found:
                raise DataError(f"There is no image file in the folder {path}: correct --input.")
        elif not path.exists():
            raise DataError(f"There is no file or folder {path}: correct --input.")
        elif path.suffix.lower() in VIDEO_ENDINGS:
            raise DataError(f"{path} looks like a video: give it with --video-input {path}.")
        else:
            found = [path]
        for item in found:
            paths.setdefault(item.resolve(), item)
    return list(paths.values())


def picture_names(paths: Sequence[Path]) -> list[str]:
    """A file name `<stem>.png` for each path, different for all, also where case makes none."""
    taken: set[str] = set()
    names = []
    for path in paths:
        name, number = path.stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{path.stem}_{number}"
        taken.add(name.lower())
        names.append(f"{name}.png")
    return names


def check_no_input_overwritten(paths: Sequence[Path], output: Path) -> None:
    """Raise ConfigError if a picture to be drawn would replace one of the inputs."""
    inputs = {path.resolve() for path in paths}
    for name in picture_names(paths):
        if (output / name).resolve() in inputs:
            raise ConfigError(
                f"Drawing into {output} would overwrite the input {output / name}: "
                "set --output to another folder."
            )
