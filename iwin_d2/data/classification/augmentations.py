"""Augmentations of the published recipe for images that torchvision has not in this form."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2

__all__ = ["NoisyErasing", "NoisyRandAugment"]

_STEPS = 10  # of torchvision's magnitudes for one of the recipe's


class NoisyRandAugment:
    """RandAugment whose magnitudes vary: "rand-m9-mstd0.5-inc1" of timm, on torchvision's.

    Each of `num_ops` operations is left out half of the time, and has a magnitude drawn from a
    normal distribution, where 10 is the most that an operation does. The operations are
    torchvision's, which differ from timm's in a few of them.
    """

    def __init__(
        self,
        magnitude: float = 9.0,
        deviation: float = 0.5,
        num_ops: int = 2,
        probability: float = 0.5,
        fill: Sequence[float] | None = (124.0, 116.0, 104.0),
    ):
        """Prepare.

        Args:
            magnitude: the mean, from 0 to 10.
            deviation: the standard deviation.
            num_ops: operations on an image.
            probability: of each of them.
            fill: what moves in from outside; None for black.
        """
        self.magnitude, self.deviation = magnitude, deviation
        self.num_ops, self.probability = num_ops, probability
        fill = None if fill is None else [float(value) for value in fill]
        bilinear = v2.InterpolationMode.BILINEAR
        bins = 10 * _STEPS + 1
        self._operations = [
            v2.RandAugment(1, number, bins, interpolation=bilinear, fill=fill)
            for number in range(bins)
        ]

    def __call__(self, image: Tensor) -> Tensor:
        """Augment uint8 Tensor[..., 3, H, W]."""
        for _ in range(self.num_ops):
            if float(torch.rand(())) >= self.probability:
                continue
            drawn = self.magnitude + self.deviation * float(torch.randn(()))
            number = round(min(max(drawn, 0.0), 10.0) * _STEPS)
            image = self._operations[number](image)
        return image


class NoisyErasing:
    """Random erasing that fills a rectangle with noise of the data's mean and deviation."""

    def __init__(
        self,
        probability: float = 0.25,
        scale: tuple[float, float] = (0.02, 1 / 3),
        ratio: tuple[float, float] = (0.3, 1 / 0.3),
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
    ):
        """Prepare.

        Args:
            probability: that an image loses a rectangle.
            scale: of the rectangle, as a share of the image.
            ratio: of its height to its width.
            pixel_mean: of each channel, of values from 0 to 255.
            pixel_std: likewise.
        """
        self.probability, self.scale, self.ratio = probability, scale, ratio
        self._mean, self._std = (
            torch.tensor(list(values)).view(-1, 1, 1) for values in (pixel_mean, pixel_std)
        )

    def __call__(self, image: Tensor) -> Tensor:
        """Return uint8 Tensor[..., 3, H, W], a copy where it loses something."""
        if float(torch.rand(())) >= self.probability:
            return image
        height, width = image.shape[-2:]
        for _ in range(10):  # attempts at a rectangle that fits
            area = height * width * float(torch.empty(()).uniform_(*self.scale))
            logs = math.log(self.ratio[0]), math.log(self.ratio[1])
            ratio = math.exp(float(torch.empty(()).uniform_(*logs)))
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < h < height and 0 < w < width:
                top = int(torch.randint(height - h + 1, ()))
                left = int(torch.randint(width - w + 1, ()))
                noise = self._mean + self._std * torch.randn(*image.shape[:-2], h, w)
                image = image.clone()
                image[..., top : top + h, left : left + w] = noise.clamp(0, 255).to(image.dtype)
                return image
        return image
