"""Gives each pixel the class of the nearest of three colours: a segmenter for trying out tools."""

import torch
from torch import nn

NAMES = ["soil", "grass", "sky"]
COLORS = ((120, 70, 20), (30, 160, 40), (90, 150, 230))


class ColorSegmenter(nn.Module):
    """Scores of pixels of the original image, or the labels alone."""

    def __init__(self, gives="sem_seg"):
        super().__init__()
        self.colors = nn.Parameter(torch.zeros(3, 3))
        self.gives = gives

    def forward(self, batch):
        assert not self.training
        return [self.segment(item) for item in batch]

    def segment(self, item):
        pixels = item["image"].float()
        scores = -(pixels[None] - self.colors[:, :, None, None]).square().sum(1)
        size = item["height"], item["width"]
        scores = nn.functional.interpolate(scores[None], size, mode="bilinear")[0]
        return {self.gives: scores.argmax(0) if self.gives == "sem_seg_labels" else scores}
