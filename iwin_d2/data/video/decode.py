"""Frames of a video file by their number, as pictures."""

from collections.abc import Callable, Sequence
from os import PathLike

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from ...errors import DataError
from .container import av_errors, import_av, reason_of
from .frame_decoder import FrameDecoder
from .orientation import display_matrix, turn_upright

__all__ = ["VideoFile"]


class VideoFile:
    """The frames of a file's first video stream, by number.

        with VideoFile("clip.mp4") as video:
            clip = video.read(range(0, 64, 2))  # uint8 Tensor[32, 3, H, W]

    Frames are numbered in the order in which they are shown, from 0, each once, however long it
    stays on screen: in files of variable frame rate, too, number n is the n-th picture and not the
    one at n / rate (`index_at` gives that). The numbers are found by reading the packets without
    decoding them. To read frames, decoding begins at the keyframe before each and ends with it;
    what lies between is decoded, not converted or kept. A few kinds of files do not tell reliably
    when frames are shown (AVI, VP8, interlaced ones): those are decoded from the beginning, and
    once more to count their frames, and the times of these follow from the average rate.

    Frames are upright, as a player shows them, and RGB by the file's own colour space; transparency
    and the aspect ratio of pixels are left out. Where frames of different sizes are read at once,
    all get the size of the first one.

    Open files cannot be shared by processes: open them in the worker that reads.
    """

    def __init__(self, path: str | PathLike, num_threads: int = 1):
        """Open the file and find its frames.

        Args:
            path: the file.
            num_threads: that decode; data-loading workers want one each.

        Raises:
            ConfigError: PyAV is not installed.
            DataError: the file is missing, empty, no video, without a video stream or frames, or
                it breaks off.
        """
        self.path = path
        self._decoder = FrameDecoder(path, num_threads)
        # One for all frames: making one takes longer than converting a frame.
        self._reformatter = import_av().video.reformatter.VideoReformatter()
        if not len(self):
            self.close()
            raise DataError(f"{path} has no frames: give another file.")

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._decoder.index)

    @property
    def times(self) -> np.ndarray:
        """When frames are shown: float64 [n], seconds since the first one."""
        return self._decoder.index.times

    def index_at(self, times: float | Sequence[float]) -> np.ndarray:
        """The frames on screen at some times, seconds since the first frame; the ends are held."""
        found = np.searchsorted(self.times, np.asarray(times, dtype=float), side="right") - 1
        return found.clip(0, len(self) - 1)

    def read(
        self, indices: Sequence[int], resize: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Decode frames.

        Args:
            indices: their numbers, in any order, also repeated.
            resize: applied to each frame, Tensor[3, H, W], as soon as it is decoded, so that of
                large frames only small ones are ever held.

        Returns:
            uint8 Tensor[T, 3, H, W], RGB, the channels innermost in memory.

        Raises:
            IndexError: there is no such frame.
            DataError: the file is damaged at or before one of the frames.
        """
        numbers, places = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        if not len(numbers) or numbers[0] < 0 or numbers[-1] >= len(self):
            raise IndexError(f"{self.path} has frames 0 to {len(self) - 1}, not {list(indices)}")
        frames = None
        for number, decoded in self._decoder.decode(numbers):
            frame = self._picture(number, decoded)
            frame = frame if resize is None else resize(frame)
            if frames is None:
                # Channels innermost, as decoded: what resizes images is fastest with that.
                frames = frame.new_empty((len(numbers), *frame.shape[1:], 3)).permute(0, 3, 1, 2)
            elif frame.shape != frames.shape[1:]:
                frame = functional.resize(frame, list(frames.shape[2:]))
            frames[np.searchsorted(numbers, number)] = frame
        in_order = np.array_equal(places, np.arange(len(numbers)))
        return frames if in_order else frames[torch.from_numpy(places)]

    def close(self) -> None:
        """Close the file."""
        self._decoder.close()

    def _picture(self, number: int, decoded) -> Tensor:
        """A PyAV frame as uint8 Tensor[3, H, W]."""
        try:
            rgb = self._reformatter.reformat(decoded, format="rgb24", threads=1)
        except av_errors() as error:
            raise DataError(
                f"frame {number + 1} of {self.path} cannot be converted to RGB "
                f"({reason_of(error)}): convert the file, or fetch it anew if it is damaged."
            ) from error
        plane = rgb.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: rgb.height]
        pixels = rows[:, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)
        pixels = turn_upright(pixels, display_matrix(decoded))
        return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
