"""Augmentations of the published recipe for images that torchvision has not in this form."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

__all__ = ["NoisyRandAugment", "RandomErasing"]

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


class RandomErasing(v2.RandomErasing):
    """torchvision's, that fills the rectangle with noise: of images, or the same in all frames.

    torchvision's own noise is for normalised values; this is for uint8.

    Args:
        p: probability of erasing at all.
        scale: range of the rectangle's share of the area.
        ratio: range of its width by its height.
        pixel_mean: of the noise in each channel, of values from 0 to 255.
        pixel_std: likewise.
    """

    def __init__(
        self,
        p: float = 0.25,
        scale: tuple[float, float] = (0.02, 1 / 3),
        ratio: tuple[float, float] = (0.3, 10 / 3),
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
    ):
        super().__init__(p=p, scale=scale, ratio=ratio)
        self._mean, self._std = (
            torch.tensor(list(values)).view(-1, 1, 1) for values in (pixel_mean, pixel_std)
        )

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the rectangle, and noise for it instead of a constant."""
        params = super().make_params(flat_inputs)
        if params["v"] is not None:
            pixels = flat_inputs[0]
            noise = torch.randn(*pixels.shape[:-2], params["h"], params["w"])
            params["v"] = (self._mean + self._std * noise).clamp(0, 255).to(pixels.dtype)
        return params
