"""Which frames of a video make its clips."""

from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["RandomClip", "RandomSegments", "SpacedClips", "SpacedSegments"]


@dataclass(frozen=True)
class RandomClip:
    """One clip of frames at equal distances, from a random place: training on Kinetics.

    A video that is too short for a clip starts at its first frame and loops.

    Args:
        num_frames: T, frames of the clip.
        stride: frames from one to the next.
    """

    num_frames: int = 32
    stride: int = 2

    def __call__(self, length: int) -> np.ndarray:
        """Indices, int64 [1, T], into the frames of a video that has `length`."""
        last = max(0, length - _span(self.num_frames, self.stride))
        starts = torch.randint(last + 1, (1,)).numpy()
        return _clips(starts, length, self.num_frames, self.stride)


@dataclass(frozen=True)
class SpacedClips:
    """Clips of frames at equal distances, spread evenly over the video: tests on Kinetics.

    Clip i of C begins at frame (i + 1/2) (n - s) / C, rounded down, of n frames, where s frames are
    from the first to the last one of a clip: 63 for 32 frames, every second one. A video that is
    too short starts at its first frame and loops.

    Args:
        num_clips: C.
        num_frames: T, frames of a clip.
        stride: frames from one to the next.
    """

    num_clips: int = 4
    num_frames: int = 32
    stride: int = 2

    def __call__(self, length: int) -> np.ndarray:
        """Indices, int64 [C, T], into the frames of a video that has `length`."""
        room = max(0, length - _span(self.num_frames, self.stride))
        starts = (2 * np.arange(self.num_clips) + 1) * room // (2 * self.num_clips)
        return _clips(starts, length, self.num_frames, self.stride)


@dataclass(frozen=True)
class RandomSegments:
    """A random frame of each of T equal parts of the video: training on Something-Something.

    The clip shows the whole video, however long it is; of one with fewer frames than T, frames
    repeat.

    Args:
        num_frames: T.
    """

    num_frames: int = 32

    def __call__(self, length: int) -> np.ndarray:
        """Indices, int64 [1, T], into the frames of a video that has `length`."""
        # From the parts' ends in units of 1/T frame, so that nothing is rounded twice.
        offsets = (torch.rand(self.num_frames, dtype=torch.float64) * length).long().numpy()
        offsets = offsets.clip(max=length - 1)
        return ((np.arange(self.num_frames) * length + offsets) // self.num_frames)[None]


@dataclass(frozen=True)
class SpacedSegments:
    """A frame of each of T equal parts of the video: tests on Something-Something.

    One clip takes the middle of each part; of C clips, number i takes what lies (i + 1/2) / C of
    the part from its beginning.

    Args:
        num_clips: C.
        num_frames: T.
    """

    num_clips: int = 1
    num_frames: int = 32

    def __call__(self, length: int) -> np.ndarray:
        """Indices, int64 [C, T], into the frames of a video that has `length`."""
        parts = 2 * self.num_clips * np.arange(self.num_frames)
        places = 2 * np.arange(self.num_clips)[:, None] + 1
        return (parts + places) * length // (2 * self.num_clips * self.num_frames)


def _span(num_frames: int, stride: int) -> int:
    """The frames from the first to the last one of a clip."""
    return (num_frames - 1) * stride + 1


def _clips(starts: np.ndarray, length: int, num_frames: int, stride: int) -> np.ndarray:
    return (starts[:, None] + stride * np.arange(num_frames)) % length
