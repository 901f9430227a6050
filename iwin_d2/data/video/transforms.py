"""Transforms of clips, uint8 Tensor[T, 3, H, W], the same for all frames of a clip.

What torchvision has is taken from there, as `torchvision.transforms.v2` draws its random numbers
once for all frames: RandomResizedCrop(224, scale=(0.08, 1), ratio=(3/4, 4/3)),
RandomHorizontalFlip, ColorJitter, CenterCrop; so does the classifiers' own RandomErasing. This adds
what it lacks. Random numbers are torch's, which the loader seeds from the position in the stream.
"""

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

__all__ = ["ShortSideResize", "ThreeCrops"]


class ShortSideResize:
    """Resizes so that the shorter side has `size` pixels, keeping the aspect ratio.

    Bilinear, antialiased; the longer side is rounded to the nearest whole number of pixels.
    """

    def __init__(self, size: int):
        self.size = size

    def __call__(self, frames: Tensor) -> Tensor:
        """Resize frames, Tensor[..., 3, H, W]."""
        height, width = frames.shape[-2:]
        short = min(height, width)
        if short == self.size:
            return frames
        sides = [max(1, round(side * self.size / short)) for side in (height, width)]
        return functional.resize(frames, sides)


class ThreeCrops:
    """Three square crops that together cover a clip: its middle and both ends of the longer side.

    The shorter side is made `size` pixels before.
    """

    def __init__(self, size: int):
        self._resize = ShortSideResize(size)
        self.size = size

    def __call__(self, frames: Tensor) -> Tensor:
        """Tensor[T, 3, H, W] -> Tensor[3, T, 3, size, size]: left or top, centre, right or bottom.

        Crops that overlap are copies.
        """
        frames = self._resize(frames)
        height, width = frames.shape[-2:]
        down, right = height - self.size, width - self.size
        crops = [
            frames[..., y : y + self.size, x : x + self.size]
            for y, x in ((0, 0), (down // 2, right // 2), (down, right))
        ]
        return torch.stack(crops)
