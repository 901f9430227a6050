"""Opening video files with PyAV: the stream that counts, and sentences for what is no video."""

import os
from os import PathLike
from pathlib import Path

from ...errors import ConfigError, DataError

__all__ = ["av_errors", "import_av", "open_container", "reason_of"]


def open_container(path: str | PathLike, num_threads: int = 1) -> tuple:
    """Open a file; return PyAV's container and its first video stream.

    Only that stream's packets are read. A picture of the cover, as sound files have them, is no
    video stream.

    Args:
        path: the file.
        num_threads: that decode; 0 lets FFmpeg choose.

    Raises:
        ConfigError: PyAV is not installed.
        DataError: the file is missing, empty, no video, or has no video stream.
    """
    av = import_av()
    if not Path(path).is_file():  # a folder, or a pipe, on which opening would wait
        if os.path.lexists(path):
            raise DataError(f"{path} is not a file, so no video: correct the path.")
        raise DataError(f"There is no video {path}: correct the path.")
    try:
        # Titles and the like, which nobody reads here, are in any encoding.
        container = av.open(str(path), metadata_errors="replace")
    except av_errors() as error:
        raise DataError(_cannot_be_read(path, error)) from error
    covers = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & covers]
    if not streams:
        what = "video stream, only sound" if container.streams.audio else "frames"
        container.close()
        raise DataError(f"{path} has no {what}: give another file.")
    if streams[0].codec_context is None:
        container.close()
        raise DataError(
            f"{path} is of a codec that this FFmpeg has no decoder for, or damaged: convert it, or "
            "fetch it anew."
        )
    for stream in container.streams:
        if stream is not streams[0]:
            stream.discard = av.stream.Discard.all
    streams[0].codec_context.thread_count = num_threads
    return container, streams[0]


def _cannot_be_read(path: str | PathLike, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"{path} cannot be read ({reason_of(error)}): correct its permissions."
    empty = Path(path).stat().st_size == 0
    reason = "the file is empty" if empty else reason_of(error)
    return (
        f"{path} cannot be read as a video ({reason}): it is cut off, damaged or something else; "
        "fetch or export it anew."
    )


def import_av():
    """The package PyAV; a ConfigError saying how to get it where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise ConfigError(
            f"Videos need the package PyAV, which cannot be imported ({error}): "
            "pip install 'iwin_d2[video]', or pip install av."
        ) from error
    return av


def av_errors() -> tuple[type[Exception], ...]:
    """What PyAV raises for files that it cannot read."""
    return (import_av().FFmpegError, OSError, ValueError)


def reason_of(error: Exception) -> str:
    """The few words of an error that say why."""
    return getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
