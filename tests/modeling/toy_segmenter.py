"""A semantic segmenter whose result for a pixel depends on all of the window that it is seen in."""

import torch
import torch.nn.functional as F
from torch import nn

from iwin_d2.d2.layers import ShapeSpec
from iwin_d2.d2.modeling import Backbone, SemanticSegmentor


class ToyBackbone(Backbone):
    """Patches of 4 x 4 pixels, and their mean; `seen` holds the sizes of what came."""

    def __init__(self, divisibility: int = 0):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 7, 4, 3)
        self.divisibility = divisibility
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        x = self.patches(F.pad(x, (0, -x.shape[-1] % 4, 0, -x.shape[-2] % 4)))
        return {"res2": x + 2 * x.mean((2, 3), keepdim=True)}

    def output_shape(self):
        return {"res2": ShapeSpec(channels=8, stride=4)}

    @property
    def size_divisibility(self):
        return self.divisibility


class ToyHead(nn.Module):
    """Logits of each patch."""

    ignore_value = 255

    def __init__(self, num_classes: int = 7):
        super().__init__()
        self.num_classes = num_classes
        self.predictor = nn.Conv2d(8, num_classes, 1)

    def layers(self, features):
        return 4 * self.predictor(features["res2"])

    def forward(self, features, targets=None):
        logits = F.interpolate(self.layers(features), scale_factor=4, mode="bilinear")
        if self.training:
            return None, {"loss_sem_seg": F.cross_entropy(logits, targets, ignore_index=255)}
        return logits, {}


def toy_segmenter(divisibility: int = 0, num_classes: int = 7) -> SemanticSegmentor:
    """The same at every call, in eval mode."""
    torch.manual_seed(0)
    return SemanticSegmentor(
        backbone=ToyBackbone(divisibility),
        sem_seg_head=ToyHead(num_classes),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    ).eval()
