"""Which frames a video file has, and where decoding has to begin for each."""

from dataclasses import dataclass
from fractions import Fraction
from os import PathLike

import numpy as np

from ...errors import DataError
from .container import av_errors, reason_of

__all__ = ["FrameIndex", "count_frames", "index_frames"]

# Containers that store when each frame is shown; the names are FFmpeg's. What others say of it is
# made up from the order of decoding, and wrong where that differs from the order of showing.
_TIMED = frozenset(
    ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpegts", "mpeg", "flv", "gif", "ogg")
)
# Codecs of which each packet is one frame; VP8, for one, has packets that are never shown.
_ONE_A_PACKET = frozenset(
    ("h264", "hevc", "vp9", "av1", "mpeg1video", "mpeg2video", "mpeg4", "mjpeg", "gif", "prores")
)


@dataclass(frozen=True)
class FrameIndex:
    """The frames of a file in the order in which they are shown.

    Attributes:
        pts: int64 [n], when each is shown, in ticks of the stream, growing; None where the file
            does not say it reliably: frames are then counted as they come out of the decoder.
        positions: int64 [n], the number of each frame's packet in the order of decoding.
        key_pts: int64 [k], when the keyframes are shown, growing.
        key_dts: int64 [k], when they are decoded.
        key_positions: int64 [k], the numbers of their packets.
        times: float64 [n], seconds since the first frame.
    """

    times: np.ndarray
    pts: np.ndarray | None = None
    positions: np.ndarray | None = None
    key_pts: np.ndarray | None = None
    key_dts: np.ndarray | None = None
    key_positions: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.times)


def index_frames(container, stream, path: str | PathLike) -> FrameIndex | None:
    """Find the frames of a newly opened stream by reading its packets; nothing is decoded.

    Leaves the container at its end. Frames that the file's edit list cuts away do not count.

    Returns:
        the index; None if the frames have to be decoded to know them (`count_frames`).

    Raises:
        DataError: the file breaks off or cannot be read to its end, or it has no frames.
    """
    context = stream.codec_context
    codec = context.codec.canonical_name
    if container.format.name not in _TIMED or codec not in _ONE_A_PACKET:
        return None
    if context.field_order > 1:  # interlaced: half frames may have packets of their own
        return None
    packets, cut_off = _read_packets(container, stream, path)
    expected = len(stream.index_entries) if container.format.name.startswith("mov") else 0
    if cut_off or len(packets) < expected:
        of = f" of {expected}" if expected else ""
        raise DataError(
            f"{path} is cut off after frame {len(packets) - cut_off}{of}: fetch or export it anew."
        )
    return _build_index(packets, stream.time_base)


def _read_packets(container, stream, path) -> tuple[list[tuple], bool]:
    """(pts, dts, is key, is shown) of all packets, and whether the last one is incomplete."""
    packets, cut_off = [], False
    try:
        for packet in container.demux(stream):
            if packet.size:  # the last one only tells the decoder of the end
                shown = not packet.is_discard
                packets.append((packet.pts, packet.dts, packet.is_keyframe, shown))
                cut_off = packet.is_corrupt
    except av_errors() as error:
        raise DataError(
            f"{path} cannot be read from frame {len(packets) + 1} on ({reason_of(error)}): it is "
            "cut off or damaged there; fetch or export it anew."
        ) from error
    return packets, cut_off


def _build_index(packets: list[tuple], time_base: Fraction) -> FrameIndex | None:
    """The index that packets make; None where their times are not complete and unambiguous."""
    if any(pts is None for pts, *_ in packets):
        return None
    # Matroska has no times of decoding, and FFmpeg makes some up for most packets only.
    rows = [(pts, pts if dts is None else dts, *marks) for pts, dts, *marks in packets]
    table = np.array(rows, np.int64).reshape(-1, 4)
    shown = np.flatnonzero(table[:, 3])
    order = shown[np.argsort(table[shown, 0], kind="stable")]
    keys = np.flatnonzero(table[:, 2])
    pts = table[order, 0]
    if (np.diff(pts) <= 0).any() or (np.diff(table[keys, 0]) <= 0).any() or not len(keys):
        return None
    return FrameIndex(
        times=(pts - pts[:1]) * float(time_base),
        pts=pts,
        positions=order,
        key_pts=table[keys, 0],
        key_dts=table[keys, 1],
        key_positions=keys,
    )


def count_frames(container, stream, path: str | PathLike) -> FrameIndex:
    """Find the frames of a newly opened stream by decoding all, keeping none.

    Raises:
        DataError: the file cannot be decoded to its end.
    """
    count = 0
    try:
        for _ in container.decode(stream):
            count += 1
    except av_errors() as error:
        raise DataError(
            f"{path} cannot be decoded from frame {count + 1} on ({reason_of(error)}): it is cut "
            "off or damaged there; fetch or export it anew."
        ) from error
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    return FrameIndex(times=np.arange(count) / rate)
