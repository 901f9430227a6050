"""Finds the bright pixels of an image as one object: a detector for trying out the demo."""

import torch
from torch import nn

from iwin_d2.d2.structures import Boxes, Instances


class BrightDetector(nn.Module):
    """One object of class 1, a box around pixels above `level`, in pixels of the original image."""

    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.tensor(200.0))

    def forward(self, batch):
        assert not self.training
        return [{"instances": self.detect(item)} for item in batch]

    def detect(self, item):
        height, width = item["height"], item["width"]
        image = item["image"].float()[None]
        bright = image.mean(1, keepdim=True)
        bright = nn.functional.interpolate(bright, (height, width))[0, 0] > self.level
        instances = Instances((height, width))
        if not bright.any():
            bright = bright[None][:0]
            boxes = torch.zeros(0, 4)
        else:
            ys, xs = bright.nonzero(as_tuple=True)
            boxes = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])[None].float()
            bright = bright[None]
        instances.pred_boxes = Boxes(boxes)
        instances.scores = torch.full((len(boxes),), 0.75)
        instances.pred_classes = torch.full((len(boxes),), 1)
        instances.pred_masks = bright
        return instances
