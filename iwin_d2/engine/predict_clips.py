"""What a classifier of videos says of one video as a whole, and of its course over time."""

import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.video.frame_folder import FrameFolder
from ..errors import DataError
from ..files import atomic_write
from .classifier_predictor import ClassifierPredictor, ClassScore
from .drawing import legible_scale
from .pipeline import Progress
from .predict import Summary
from .prediction_files import ResultsFile, sentence_if_not_written
from .reports import TOP, class_records
from .score_bars import draw_scores, enlarge
from .video import Frame, VideoReader, check_video_output, write_to

__all__ = ["ClipWindow", "open_frames", "predict_clips"]

_LONG = 1_000_000  # frames: a video in which no sampler has to repeat any
_STRIDE = 2  # of samplers that spread their frames over the whole video
_PREDICTIONS = 4  # for each length of a clip
_FOLDER_RATE = 25


class ClipWindow:
    """The last frames of a video, as many as a clip spans, as small as the model needs them.

    Before so many have come, a clip is made of those that there are, as the test's sampler does it
    for short videos.

    Attributes:
        span: frames from the first to the last one of a clip.
    """

    def __init__(self, predictor: ClassifierPredictor):
        """Prepare.

        Args:
            predictor: of videos. Its test's sampler says how many frames make a clip and, where
                it has a `stride`, how far they are apart.
        """
        self._predictor = predictor
        self._sampler = predictor.mapper.sampler
        num_frames = self._sampler(_LONG).shape[-1]
        self.span = (num_frames - 1) * getattr(self._sampler, "stride", _STRIDE) + 1
        self._frames: deque[tuple[Tensor, Fraction]] = deque(maxlen=self.span)

    def add(self, frame: Frame) -> None:
        """Take the next frame; the oldest one goes where there are enough."""
        pixels = torch.from_numpy(np.ascontiguousarray(frame.pixels)).permute(2, 0, 1)
        # A copy: many frames are kept, and a resize may give back what it was given.
        self._frames.append((self._predictor.shrink(pixels).clone(), frame.time))

    @property
    def begin(self) -> float:
        """The time of the oldest frame in seconds."""
        return float(self._frames[0][1])

    def predict(self) -> dict[str, Tensor]:
        """What the model says of the clip that the frames make."""
        frames = [pixels for pixels, _ in self._frames]
        return self._predictor.predict_inputs([self._predictor.prepare_clip(frames, self._clip)])[0]

    def _clip(self, length: int) -> np.ndarray:
        """The middle one of the sampler's clips."""
        clips = self._sampler(length)
        return clips[len(clips) // 2][None]


def predict_clips(
    predictor: ClassifierPredictor,
    path: Path,
    output: Path,
    *,
    results_file: Path | None = None,
    every: int | None = None,
    top: int | None = None,
) -> Summary:
    """Classify a video, and the last clip before each of many frames; write the video with it.

    Each frame is drawn with the classes of the highest scores of the latest prediction below it.
    The frames are decoded once, in order, and few of them are held, however long the video is.

    Args:
        predictor: of videos.
        path: a video, or a folder with a picture for each frame, taken for 25 a second.
        output: the video to write, .mp4, .mov or .mkv.
        results_file: a json to write: {"file_name", "classes" of the whole video by the test's
            clips and crops, null where they cannot be read, "over_time": [{"time", "begin",
            "classes"}]}; a prediction is of the frames from "begin" to "time", in seconds. Classes
            are {"class", "name", "score"}, the highest score first.
        every: frames from one prediction to the next; four for each length of a clip if None.
        top: classes that are shown; five if None.

    Returns:
        of it, `images` are frames and `predictions` those over time.

    Raises:
        ConfigError: `output` has another ending.
        DataError: the video cannot be read at all, or a file cannot be written.
    """
    check_video_output(output)
    top = TOP if top is None else top
    window = ClipWindow(predictor)
    every = max(1, window.span // _PREDICTIONS) if every is None else every
    summary = Summary(classified=True)
    with open_frames(path) as video:
        summary.whole = _predict_whole(predictor, path, top, summary)
        with (
            _open_timeline(results_file, path, summary.whole) as listed,
            write_to(output, video.rate, video.pixel_aspect) as writer,
        ):
            progress = Progress("frames", video.num_frames)
            strip = None
            for number, frame in enumerate(video):
                window.add(frame)
                picture = enlarge(frame.pixels, legible_scale(frame.pixels))
                if number % every == 0:
                    found = predictor.top(window.predict(), top)
                    span = {"time": float(frame.time), "begin": window.begin}
                    listed.add([{**span, "classes": class_records(found)}])
                    strip = draw_scores(found, picture.shape[1], _caption(span), lines=len(found))
                writer.add(_joined(picture, strip), frame.time)
                progress.step()
    summary.images, summary.predictions = progress.count, listed.count
    summary.speed = progress.speed()
    if video.problem:
        sentence = f"{video.problem} {output} holds the {summary.images} frames before that."
        summary.problems.append(sentence)
    return summary


class _FolderReader:
    """The pictures of a folder as `VideoReader` gives the frames of a file."""

    rate, pixel_aspect = Fraction(_FOLDER_RATE), Fraction(1)

    def __init__(self, path: Path):
        self._frames = FrameFolder(path, rate=_FOLDER_RATE)
        self.num_frames = len(self._frames)
        self.problem: str | None = None

    def __enter__(self) -> "_FolderReader":
        return self

    def __exit__(self, *error) -> None:
        self._frames.close()

    def __iter__(self) -> Iterator[Frame]:
        for number in range(self.num_frames):
            try:
                pixels = self._frames.read([number])[0].permute(1, 2, 0).numpy()
            except DataError as error:
                if number == 0:
                    raise
                self.problem = error.sentence
                return
            yield Frame(np.ascontiguousarray(pixels), Fraction(number, _FOLDER_RATE))


def open_frames(path: Path) -> VideoReader | _FolderReader:
    """Open a video, or a folder with a picture for each frame, to read all frames in order.

    Raises:
        DataError: it is neither, or damaged at its beginning.
    """
    return _FolderReader(path) if path.is_dir() else VideoReader(path)


def _predict_whole(
    predictor: ClassifierPredictor, path: Path, top: int, summary: Summary
) -> list[ClassScore] | None:
    """What the test's clips and crops say; None, and a problem, where they cannot be read."""
    try:
        return predictor.top(predictor(path), top)
    except DataError as error:
        summary.problems.append(f"The video as a whole cannot be classified: {error.sentence}")
        return None


def _caption(span: dict[str, float]) -> str:
    return f"{span['begin']:.1f} to {span['time']:.1f} s"


def _joined(picture: np.ndarray, strip: np.ndarray) -> np.ndarray:
    """A frame above its scores, also where its size is not that of the first one."""
    if picture.shape[1] != strip.shape[1]:
        picture = enlarge(picture, strip.shape[1] / picture.shape[1])
    return np.concatenate([picture, strip])


@contextmanager
def _open_timeline(
    path: Path | None, video: Path, whole: list[ClassScore] | None
) -> Iterator[ResultsFile]:
    """The json of `predict_clips`, to add the predictions over time to; it grows on the disk."""
    if path is None:
        yield ResultsFile(None, None)
        return
    with sentence_if_not_written(path), atomic_write(path, "w") as file:
        classes: Any = None if whole is None else class_records(whole)
        name, classes = json.dumps(str(video)), json.dumps(classes)
        file.write(f'{{"file_name": {name},\n"classes": {classes},\n"over_time": ')
        results = ResultsFile(file, path)
        yield results
        results.finish()
        file.write("}\n")
