"""Decoding of some frames of a video file, beginning at the keyframes before them."""

from collections.abc import Iterator
from itertools import chain
from os import PathLike

import numpy as np

from ...errors import DataError
from .container import av_errors, open_container, reason_of
from .frame_index import count_frames, index_frames

__all__ = ["FrameDecoder"]

# Codecs whose decoders can leave out frames that no other frame is predicted from.
_LEAVE_OUT = frozenset(("h264", "mpeg1video", "mpeg2video", "mpeg4"))
_NEAR = 32  # packets up to which reading on is cheaper than seeking
# Packets that a decoder may want beyond a frame's own before it gives the frame: the standards
# reorder by 16 frames at most.
_DELAY = 16


class FrameDecoder:
    """PyAV's frames of a file by number; see `VideoFile`, which makes pictures of them.

    Attributes:
        index: the frames that there are.
    """

    def __init__(self, path: str | PathLike, num_threads: int = 1):
        self._path = path
        self._num_threads = num_threads
        self._container = None
        self._restart()
        try:
            self.index = index_frames(self._container, self._stream, path)
            if self.index is None:
                self._restart()
                self.index = count_frames(self._container, self._stream, path)
        except BaseException:
            self.close()
            raise
        codec = self._stream.codec_context.codec.canonical_name
        self._can_leave_out = codec in _LEAVE_OUT

    def close(self) -> None:
        """Close the file."""
        if self._container is not None:
            self._container.close()

    def decode(self, numbers: np.ndarray) -> Iterator[tuple[int, object]]:
        """Yield (number, PyAV's frame) for each of some different, growing numbers, in any order.

        Raises:
            DataError: the file is damaged at or before one of them.
        """
        wanted = set(numbers.tolist())
        try:
            for number, frame in self._find(numbers):
                wanted.discard(number)
                yield number, frame
        except av_errors() as error:
            raise DataError(
                f"{self._path} cannot be decoded at frame {min(wanted) + 1} of {len(self.index)} "
                f"({reason_of(error)}): it is cut off or damaged there; fetch or export it anew."
            ) from error
        if wanted:
            raise DataError(
                f"{self._path} has no picture for frame {min(wanted) + 1} of {len(self.index)}: it "
                "is damaged; fetch or export it anew."
            )

    def _find(self, numbers: np.ndarray) -> Iterator[tuple[int, object]]:
        if self.index.pts is None:
            yield from self._count_to(numbers)
            return
        wanted = {int(self.index.pts[number]): int(number) for number in numbers}
        yield from self._seek_all(numbers, wanted)
        if wanted:  # keyframes or times that are not what they are said to be: decode everything
            self._restart()
            yield from self._feed(wanted, set(wanted), len(self.index), can_leave_out=False)

    def _count_to(self, numbers: np.ndarray) -> Iterator[tuple[int, object]]:
        """Decode from the beginning up to the last of the numbers."""
        wanted = set(numbers.tolist())
        self._restart()
        for number, frame in enumerate(self._container.decode(self._stream)):
            if number in wanted:
                yield number, frame
                wanted.remove(number)
            if not wanted:
                return

    def _seek_all(
        self, numbers: np.ndarray, wanted: dict[int, int]
    ) -> Iterator[tuple[int, object]]:
        """Decode the groups of pictures that the numbers are in; take what is found off `wanted`.

        `wanted` maps the frames' times to their numbers.
        """
        index = self.index
        self._next = None  # what an earlier call has left in the decoder is not what is wanted
        pts = index.pts[numbers]
        keys = (np.searchsorted(index.key_pts, pts, side="right") - 1).clip(0)
        for key in np.unique(keys):
            group = keys == key
            self._go_to(key)
            end = int(index.positions[numbers[group]].max()) + _DELAY + self._num_threads
            yield from self._feed(wanted, set(pts[group].tolist()), end, self._can_leave_out)

    # ---- a position in the stream of packets -----------------------------------------------------

    def _restart(self) -> None:
        """Open the file anew; its first packet is the next one."""
        self.close()
        self._container, self._stream = open_container(self._path, self._num_threads)
        self._packets = self._container.demux(self._stream)
        self._next = 0

    def _go_to(self, key: int) -> None:
        """Make a keyframe the next packet, unless it is in the decoder already."""
        start = int(self.index.key_positions[key])
        if self._next is None or start - self._next > _NEAR:
            if not self._seek(key):
                self._restart()
        elif start > self._next:
            self._stream.codec_context.flush_buffers()
        while self._next < start:
            self._next += bool(next(self._packets).size)

    def _seek(self, key: int) -> bool:
        """Go to a keyframe, or to one before it; False where the container cannot."""
        # Some containers look for the time of showing, some for that of decoding.
        for time in (self.index.key_pts[key], self.index.key_dts[key]):
            try:
                self._container.seek(int(time), stream=self._stream)
                if self._land(key):
                    return True
            except av_errors():
                continue
        return False

    def _land(self, latest: int) -> bool:
        """Find out where a seek has led; False if it is after the keyframe `latest`, or unknown."""
        packets = self._container.demux(self._stream)
        first = next((p for p in packets if p.is_keyframe and p.size), None)
        if first is None or first.pts is None:
            return False
        key = int(np.searchsorted(self.index.key_pts, first.pts))
        if key > latest or self.index.key_pts[key] != first.pts:
            return False
        self._packets = chain([first], packets)
        self._next = int(self.index.key_positions[key])
        return True

    def _feed(
        self, wanted: dict[int, int], pending: set[int], end: int, can_leave_out: bool
    ) -> Iterator[tuple[int, object]]:
        """Decode until all of the `pending` times are found, or packet `end` is reached."""
        context = self._stream.codec_context
        for packet in self._packets:
            if can_leave_out:
                context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            self._next += bool(packet.size)
            for frame in packet.decode():
                pending.discard(frame.pts)
                if frame.pts in wanted:
                    yield wanted.pop(frame.pts), frame
            if not pending or self._next > end:
                return
