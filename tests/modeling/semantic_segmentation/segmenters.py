"""Small segmenters, and backbones that are not this project's."""

import itertools
from pathlib import Path

import torch.nn.functional as F
from torch import nn

from iwin_d2.d2.config import LazyConfig
from iwin_d2.d2.layers import ShapeSpec
from iwin_d2.d2.modeling import Backbone

MODELS = Path(__file__).resolve().parents[3] / "configs/common/models"


def shrunken_upernet(num_classes=5, channels=24, auxiliary_channels=16):
    """The published UPerNet's config, shrunken to the size of the golden file's model."""
    model = LazyConfig.load(str(MODELS / "upernet_iwin.py")).model
    model.backbone.update(
        embed_dim=16, depths=[1, 1, 2, 1], num_heads=[2, 4, 8, 16], drop_path_rate=0.0
    )
    model.sem_seg_head.update(num_classes=num_classes, channels=channels)
    model.sem_seg_head.auxiliary.channels = auxiliary_channels
    return model


def shrunken_semantic_fpn(num_classes=5, channels=32):
    """The Semantic FPN's config, likewise."""
    model = LazyConfig.load(str(MODELS / "semantic_fpn_iwin.py")).model
    model.backbone.bottom_up.update(
        embed_dim=16, depths=[1, 1, 2, 1], num_heads=[2, 4, 8, 16], drop_path_rate=0.0
    )
    model.backbone.out_channels = channels
    model.sem_seg_head.update(num_classes=num_classes, conv_dims=channels)
    return model


class FourLevels(Backbone):
    """Strided convolutions with outputs of any channels; the maps' sides are rounded up or down."""

    def __init__(self, channels=(6, 10, 4, 8), rounds_up=True):
        super().__init__()
        padding, kernel = (1, 3) if rounds_up else (0, 2)
        self.stem = nn.Conv2d(3, channels[0], 4 if not rounds_up else 7, 4, 3 * padding)
        self.deeper = nn.ModuleList(
            nn.Conv2d(before, after, kernel, 2, padding)
            for before, after in itertools.pairwise(channels)
        )
        self._out_features = ["c2", "c3", "c4", "c5"]
        self._out_feature_channels = dict(zip(self._out_features, channels))
        self._out_feature_strides = dict(zip(self._out_features, (4, 8, 16, 32)))

    def forward(self, x):
        maps = [self.stem(x)]
        for conv in self.deeper:
            maps.append(conv(F.relu(maps[-1])))
        return dict(zip(self._out_features, maps))

    @property
    def shapes(self):
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }
