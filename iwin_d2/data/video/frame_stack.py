"""Frames in memory as a source of clips beside video files and folders."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

__all__ = ["FrameStack"]


class FrameStack:
    """Frames in memory with as much of a `VideoFile`'s interface as the mapper needs.

    Args:
        frames: uint8 Tensor[3, H, W] each, RGB.
    """

    def __init__(self, frames: Sequence[Tensor]):
        self._frames = list(frames)

    def __len__(self) -> int:
        return len(self._frames)

    def read(
        self, indices: Sequence[int], resize: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Stack frames: uint8 Tensor[T, 3, H, W]; arguments are those of `VideoFile.read`."""
        taken = {}
        size = None
        for number in map(int, indices):
            if number not in taken:
                frame = self._frames[number]
                frame = frame if resize is None else resize(frame)
                size = size or list(frame.shape[1:])
                same = list(frame.shape[1:]) == size
                taken[number] = frame if same else functional.resize(frame, size)
        return torch.stack([taken[int(number)] for number in indices])

    def close(self) -> None:
        """Do nothing: there is nothing open."""
