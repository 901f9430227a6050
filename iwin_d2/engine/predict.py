"""Predictions on folders of images and on videos: drawn, and listed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import DataError
from .classifier_predictor import ClassifierPredictor, ClassScore
from .images import read_rgb
from .pipeline import Progress, ordered_map
from .prediction_files import (
    check_no_input_overwritten,
    find_images,
    make_folder,
    open_results,
    picture_names,
    video_output,
    write_labels,
    write_picture,
)
from .predictor import Predictor
from .reports import Report, SegmentationReport, make_report
from .video import Frame, VideoReader, check_video_output, write_to

__all__ = [
    "LABELS",
    "Summary",
    "check_no_input_overwritten",
    "find_images",
    "picture_names",
    "predict_files",
    "predict_video",
    "video_output",
]

LABELS = "labels"  # the folder of label images, in that of the pictures


@dataclass
class Summary:
    """What became of a run.

    Attributes:
        images: images or frames that were predicted.
        predictions: on all of them together; of a segmenter or a classifier, one for each.
        speed: images a second, from the first reading to the last writing.
        problems: a sentence for each image that was left out, or for the damage in a video.
        segmented: whether the model is a semantic segmenter; False where it did not predict.
        classified: whether it is a classifier.
        whole: what a classifier of videos says of the video; None where there is none.
    """

    images: int = 0
    predictions: int = 0
    speed: float = 0.0
    problems: list[str] = field(default_factory=list)
    segmented: bool = False
    classified: bool = False
    whole: list[ClassScore] | None = None


def predict_files(
    predictor: Predictor | ClassifierPredictor,
    paths: Sequence[Path],
    output: Path,
    *,
    threshold: float | None = None,
    opacity: float | None = None,
    top: int | None = None,
    batch_size: int = 1,
    workers: int = 2,
) -> Summary:
    """Predict files, draw each into `output`, write predictions.json there.

    Pictures of small images are enlarged; predictions.json is in pixels of the file, its image_id
    counts the paths from 1. It is written whole, at the end, or not at all.

    Of a detector, predictions.json holds COCO results. Of a semantic segmenter, a record for each
    image lists the classes that occur with their pixels and their share, and names the label image
    in `labels`: class numbers, in pixels of the file. Of a classifier, a record lists the classes
    of the highest scores.

    Args:
        predictor: of images.
        paths: the files; those that cannot be read are skipped.
        output: an existing folder.
        threshold: predictions of a detector with a lower score are left out; 0.5 if None.
        opacity: of a segmenter's colours, from 0 to 1; that of `draw_segments` if None.
        top: classes that are shown, of a classifier; five if None.
        batch_size: the most images in one pass of the model; does not change predictions.
        workers: threads that read images, and as many that draw; 0 for none.

    Raises:
        ConfigError: the model is none of these, or an argument is not for it.
        DataError: `output` cannot be written to.
    """
    summary, progress = Summary(), Progress("images", len(paths))
    summary.classified = isinstance(predictor, ClassifierPredictor)
    names = picture_names(paths)

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

    def predicted() -> Iterator[tuple[Report, int, dict]]:
        report = None
        for (number, _), found in predictor.predict_stream(
            readable(), batch_size, lambda item: item[1]
        ):
            if report is None:
                options = {"threshold": threshold, "opacity": opacity, "top": top}
                report = make_report(predictor, found, **options)
                if isinstance(report, SegmentationReport):
                    check_no_input_overwritten(paths, output / LABELS)
                    make_folder(output / LABELS)
                    summary.segmented = True
            yield report, number, found

    def write(item: tuple[Report, int, dict]) -> list[dict] | DataError:
        report, number, found = item
        path, name = paths[number - 1], names[number - 1]
        try:
            # Once more: in the size of the file, waiting images would take much memory.
            pixels = read_rgb(path)
        except DataError as error:
            return error
        shown = report(pixels, found, number, file_name=str(path))
        write_picture(shown.picture, output / name)
        if shown.labels is not None:
            write_labels(shown.labels, output / LABELS / name, report.num_classes)
            shown.records[0]["label_file"] = f"{LABELS}/{name}"
        return shown.records

    with open_results(output / "predictions.json") as results:
        for records in ordered_map(write, predicted(), workers, 2 * workers):
            progress.step()
            if isinstance(records, DataError):
                summary.problems.append(records.sentence)
                continue
            results.add(records)
            summary.images += 1
    summary.predictions, summary.speed = results.count, progress.speed()
    return summary


def predict_video(
    predictor: Predictor | ClassifierPredictor,
    path: Path,
    output: Path,
    *,
    results_file: Path | None = None,
    threshold: float | None = None,
    opacity: float | None = None,
    top: int | None = None,
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
        results_file: a json to write, with records as those of `predict_files` but for the names
            of files: image_id counts the frames from 1, "time" is that of the frame in seconds.
        threshold: as for `predict_files`.
        opacity: as for `predict_files`.
        top: as for `predict_files`.
        batch_size: the most frames in one pass of the model; does not change predictions.
        workers: threads that prepare frames, and as many that draw; 0 for none.

    Raises:
        ConfigError: `output` has another ending, the model is none of images, or an argument is
            not for it.
        DataError: the video cannot be read at all, or a file cannot be written.
    """
    check_video_output(output)
    summary = Summary(classified=isinstance(predictor, ClassifierPredictor))

    def load(numbered: tuple[int, Frame]) -> tuple[int, Frame, dict]:
        number, frame = numbered
        return number, frame, predictor.prepare(frame.pixels, array_format="RGB")

    def predicted(loaded: Iterator[tuple]) -> Iterator[tuple[Report, int, Frame, dict]]:
        report = None
        for item, found in predictor.predict_stream(loaded, batch_size, lambda item: item[2]):
            if report is None:
                options = {"threshold": threshold, "opacity": opacity, "top": top}
                report = make_report(predictor, found, **options, video=True)
                summary.segmented = isinstance(report, SegmentationReport)
            yield report, *item[:2], found

    def draw(item: tuple[Report, int, Frame, dict]) -> tuple[np.ndarray, Frame, list[dict]]:
        report, number, frame, found = item
        shown = report(frame.pixels, found, number, time=float(frame.time))
        return shown.picture, frame, shown.records

    with (
        VideoReader(path) as video,
        open_results(results_file) as listed,
        write_to(output, video.rate, video.pixel_aspect) as writer,
    ):
        progress = Progress("frames", video.num_frames)
        loaded = ordered_map(load, enumerate(video, start=1), workers, batch_size + workers)
        for picture, frame, records in ordered_map(draw, predicted(loaded), workers, 2 * workers):
            writer.add(picture, frame.time)
            listed.add(records)
            progress.step()
    summary.images, summary.predictions = progress.count, listed.count
    summary.speed, summary.problems = progress.speed(), [video.problem] if video.problem else []
    return summary
