"""Writing small video files: generated clips for training, tests and benchmarks."""

from collections.abc import Iterable
from os import PathLike

import numpy as np

from .container import import_av

__all__ = ["find_encoder", "write_clip"]

# Which builds of FFmpeg have which encoder depends on their licence; the last one all of them have.
_ENCODERS = ("libx264", "libopenh264", "mpeg4")
_OPTIONS = {
    # Of small frames, x264's macroblock tree reads memory that nobody has written: without it, the
    # same frames make the same file.
    "libx264": {"crf": "20", "preset": "veryfast", "mbtree": "0"},
    "mpeg4": {"qmin": "2", "qmax": "5"},
}


def find_encoder() -> str:
    """FFmpeg's name of the encoder that is used: H.264 where there is one, else MPEG-4 part 2."""
    available = import_av().codecs_available
    return next(name for name in _ENCODERS if name in available)


def write_clip(
    path: str | PathLike,
    frames: Iterable[np.ndarray],
    rate: int = 25,
    options: dict[str, str] | None = None,
) -> None:
    """Write a video without sound; the same frames make the same file.

    Args:
        path: the file; its ending names the container.
        frames: at least one, RGB uint8 [H, W, 3] of one size with even sides.
        rate: frames a second.
        options: of the encoder, by FFmpeg's names, instead of the usual ones.
    """
    encoder = find_encoder()
    with import_av().open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=rate, options=options or _OPTIONS.get(encoder))
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # with several, what comes out may differ
        for number, pixels in enumerate(frames):
            if number == 0:
                stream.height, stream.width = pixels.shape[:2]
            frame = import_av().VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
            frame.pts = number
            container.mux(stream.encode(frame.reformat(format="yuv420p", threads=1)))
        container.mux(stream.encode(None))
