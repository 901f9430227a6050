"""Video files as upright RGB frames with their times, read and written with PyAV."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..errors import ConfigError, DataError
from ..files import atomic_write

__all__ = ["VIDEO_ENDINGS", "Frame", "VideoReader", "VideoWriter", "check_video_output", "write_to"]

logger = logging.getLogger(__name__)

# What is written, by the ending of the file's name: FFmpeg's names of the containers.
_CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
# What is likely to be a video, by its ending; of those that can be read, not all.
VIDEO_ENDINGS = frozenset(
    (*_CONTAINERS, ".avi", ".m4v", ".mpg", ".mpeg", ".mts", ".ogv", ".ts", ".webm", ".wmv")
)
# Which builds of FFmpeg have which encoder depends on their licence; the last one all of them have.
_ENCODERS = ("libx264", "libopenh264", "mpeg4")
_OPTIONS = {"libx264": {"crf": "20", "preset": "veryfast"}, "mpeg4": {"qmin": "2", "qmax": "5"}}
_WHOLE = 0.9  # of what the header says; clips that are cut by an edit list have some less
_MPEG4_TICKS = 65535  # the finest clock that MPEG-4 part 2 can note


class Frame(NamedTuple):
    """One frame of a video.

    Attributes:
        pixels: RGB, uint8 [H, W, 3], upright.
        time: seconds since the first frame.
    """

    pixels: np.ndarray
    time: Fraction


def check_video_output(path: Path) -> None:
    """Raise ConfigError if a video cannot be written under this name."""
    if path.suffix.lower() not in _CONTAINERS:
        raise ConfigError(
            f"{path} is no name for a video: end it in {', '.join(_CONTAINERS)} (--output)."
        )


class VideoReader:
    """The frames of the first video stream of a file, once, in the order in which they are shown.

        with VideoReader("clip.mp4") as video:
            for frame in video: ...

    A file that is damaged further on gives the frames before the damage; `problem` then says so.
    One that ends long before its header says is warned of: it is cut off, or its sound is longer.
    Frames are turned upright, converted to RGB by the file's own colour space; sound is left out.

    Attributes:
        rate: frames a second, on average.
        num_frames: what the header says or, with `is_estimate`, what follows from its duration;
            None where there is neither.
        pixel_aspect: width of an upright pixel by its height, nearly always 1.
        problem: None, or a sentence saying from which frame on the file could not be read.
    """

    def __init__(self, path: str | PathLike):
        """Open the file.

        Raises:
            ConfigError: PyAV is not installed.
            DataError: the file is missing, no video, or damaged at its beginning.
        """
        self._path = path
        self._av = _import_av()
        self.problem: str | None = None
        if not Path(path).is_file():
            raise DataError(f"There is no video {path}: correct the path.")
        try:
            self._container = self._av.open(str(path))
        except (self._av.FFmpegError, OSError, ValueError) as error:
            empty = Path(path).stat().st_size == 0
            reason = "the file is empty" if empty else _reason(error)
            raise DataError(
                f"{path} cannot be read as a video ({reason}): it is cut off, damaged or something "
                "else; fetch or export it anew."
            ) from error
        self._stream = self._container.streams.best("video")
        if self._stream is None:
            self._container.close()
            raise DataError(f"{path} has no video stream, only sound or text: give another file.")
        # One thread: decoding is fast beside the model, and errors then come at their frame.
        self._stream.codec_context.thread_count = 1
        self.rate = Fraction(self._stream.average_rate or self._stream.guessed_rate or 25)
        self.num_frames, self.is_estimate = self._count()
        self._decoded = self._decode()
        self._first = next(self._decoded, None)
        if self._first is None:
            self._container.close()
            raise DataError(self.problem or f"{path} has no frames: give another file.")
        aspect = Fraction(self._stream.codec_context.sample_aspect_ratio or 1)
        self.pixel_aspect = 1 / aspect if self._first[0].rotation % 180 else aspect

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *error) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        clock, count, end = _Clock(1 / self.rate), 0, Fraction(0)
        for frame, pixels in chain([self._first], self._decoded):
            # np.rot90 turns counterclockwise, as `rotation` counts.
            upright = np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
            time = clock.next(frame.pts, frame.time_base)
            count, end = count + 1, time + 1 / self.rate
            yield Frame(upright, time)
        # Where frames are not counted, they may come more seldom than the rate says.
        found = end * self.rate if self.is_estimate else count
        if self.num_frames and found < _WHOLE * self.num_frames and not self.problem:
            logger.warning(
                "%s ends after frame %d (%.1f s), but its header promises %s%d frames: it may be "
                "cut off.",
                *(self._path, count, end, "about " if self.is_estimate else "", self.num_frames),
            )

    def _decode(self) -> Iterator[tuple]:
        """PyAV's frames with their RGB pixels as stored, up to the end or the first damage."""
        count = 0
        try:
            for frame in self._container.decode(self._stream):
                yield frame, frame.to_ndarray(format="rgb24")
                count += 1
        except (self._av.FFmpegError, OSError, ValueError) as error:
            self.problem = self._damage(count, error)

    def _count(self) -> tuple[int | None, bool]:
        """The number of frames, and whether it is estimated."""
        if self._stream.frames:
            return self._stream.frames, False
        if self._stream.duration:
            seconds = self._stream.duration * self._stream.time_base
        elif self._container.duration:
            seconds = Fraction(self._container.duration, self._av.time_base)
        else:
            return None, True
        return max(round(seconds * self.rate), 1), True

    def _damage(self, count: int, error: Exception) -> str:
        total = f" of {self.num_frames}" if self.num_frames and not self.is_estimate else ""
        return (
            f"{self._path} cannot be decoded from frame {count + 1}{total} on "
            f"({_reason(error)}): it is cut off or damaged there."
        )


class _Clock:
    """Times of frames since the first one, always growing.

    Files lack the times of frames, or have them in disorder; such a frame follows the one before it
    by the usual distance.
    """

    def __init__(self, step: Fraction):
        self._step = step
        self._start: Fraction | None = None
        self._last: Fraction | None = None

    def next(self, pts: int | None, time_base: Fraction | None) -> Fraction:
        time = None if pts is None or not time_base else pts * time_base
        if self._last is None:
            self._start, self._last = time or Fraction(0), Fraction(0)
            return self._last
        time = None if time is None else time - self._start
        self._last = time if time is not None and time > self._last else self._last + self._step
        return self._last


class VideoWriter:
    """Encodes frames into an open file; made by `write_to`."""

    def __init__(self, file, container: str, rate: Fraction, pixel_aspect: Fraction):
        self._av = _import_av()
        self._rate = rate
        self._pixel_aspect = pixel_aspect
        self._container = self._av.open(file, "w", format=container)
        self._stream = None
        self._last_tick = -1
        self.count = 0

    def add(self, pixels: np.ndarray, time: Fraction) -> None:
        """Encode a frame.

        Args:
            pixels: RGB, uint8 [H, W, 3]. Odd sides get one more row or column, a copy of the last,
                since nearly all players want even ones. Later frames of another size are resized
                to that of the first.
            time: seconds since the first frame; later than the frame before.
        """
        pixels = np.pad(
            pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), "edge"
        )
        if self._stream is None:
            self._stream = self._add_stream(pixels.shape[1], pixels.shape[0])
        size = self._stream.width, self._stream.height
        if pixels.shape[1::-1] != size:
            pixels = np.asarray(Image.fromarray(pixels).resize(size))
        context = self._stream.codec_context
        frame = self._av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame = frame.reformat(format=context.pix_fmt, dst_colorspace="ITU709")
        self._last_tick = max(round(time / context.time_base), self._last_tick + 1)
        frame.pts, frame.time_base = self._last_tick, context.time_base
        self._container.mux(self._stream.encode(frame))
        self.count += 1

    def finish(self) -> None:
        """Encode what the encoder still holds and complete the file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def abandon(self) -> None:
        """Let go of an incomplete file."""
        with suppress(self._av.FFmpegError, OSError):  # the error that led here says more
            self._container.close()

    def _add_stream(self, width: int, height: int):
        encoder = next(name for name in _ENCODERS if name in self._av.codecs_available)
        rate = self._rate.limit_denominator(1001)  # as in 30000/1001
        stream = self._container.add_stream(encoder, rate=rate, options=_OPTIONS.get(encoder, {}))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = _clock(rate, _MPEG4_TICKS if encoder == "mpeg4" else 180000)
        context.sample_aspect_ratio = self._pixel_aspect.limit_denominator(255)
        # Said in the file, or players guess the colour space by the size of the picture.
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1  # 16 to 235
        return stream


@contextmanager
def write_to(
    path: Path, rate: Fraction, pixel_aspect: Fraction = Fraction(1)
) -> Iterator[VideoWriter]:
    """Write a video, whole or not at all: the file appears when the block ends without an error.

    H.264, or MPEG-4 where this FFmpeg has no encoder for it; without sound.

    Args:
        path: ends in .mp4, .mov or .mkv.
        rate: frames a second, for the header; what counts are the times of the frames.
        pixel_aspect: width of a pixel by its height.

    Raises:
        ConfigError: PyAV is not installed.
        DataError: the file cannot be written.
    """
    av = _import_av()
    try:
        with atomic_write(path) as file:
            writer = VideoWriter(file, _CONTAINERS[path.suffix.lower()], rate, pixel_aspect)
            try:
                yield writer
                writer.finish()
            except BaseException:
                writer.abandon()
                raise
    except (OSError, av.FFmpegError) as error:
        raise DataError(
            f"The video {path} cannot be written ({_reason(error)}): free some space, or set "
            "--output to another place."
        ) from error


def _clock(rate: Fraction, most: int) -> Fraction:
    """The finest unit of time, up to `most` a second, that frames of this rate keep step with."""
    return Fraction(1, rate.numerator * (most // rate.numerator) or most)


def _import_av():
    try:
        import av
    except ImportError as error:
        raise ConfigError(
            f"Videos need the package PyAV, which cannot be imported ({error}): "
            "pip install 'iwin_d2[video]', or pip install av."
        ) from error
    return av


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
