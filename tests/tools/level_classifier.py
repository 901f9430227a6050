"""Classifiers of images and videos by brightness, and configs of them, for tests of the demo."""

import torch
from omegaconf import OmegaConf
from torch import nn
from torchvision.transforms import v2

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.config import LazyConfig
from iwin_d2.d2.data import build_detection_test_loader
from iwin_d2.data.classification.image_mapper import ImageMapper
from iwin_d2.data.video.mapper import VideoMapper
from iwin_d2.data.video.sampling import SpacedClips
from iwin_d2.data.video.transforms import ThreeCrops

NAMES = ["black", "dark", "middle", "light", "bright", "white"]
LEVELS = torch.linspace(0.0, 250.0, len(NAMES))


class LevelClassifier(nn.Module):
    """The likeliest class is that whose level, from 0 to 250, is the nearest to the mean pixel."""

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes
        self.levels = nn.Parameter(torch.zeros(num_classes))

    def forward(self, images):
        if images.dim() == 6:
            return self(images.flatten(0, 1)).softmax(-1).unflatten(0, images.shape[:2]).mean(1)
        mean = images.flatten(1).mean(1, keepdim=True)
        return -(((mean - self.levels) / 25) ** 2)


def write_config(path, *, video=False):
    """Write a config that trains nothing; classes and their names are the checkpoint's."""
    if video:
        sampler = L(SpacedClips)(num_clips=2, num_frames=4, stride=2)
        mapper = L(VideoMapper)(
            is_train=False, sampler=sampler, transforms=[L(ThreeCrops)(size=16)]
        )
    else:
        mapper = L(ImageMapper)(augmentations=[L(v2.Resize)(size=[16, 16])])
    loader = L(build_detection_test_loader)(dataset=[], mapper=mapper)
    data = {"pixel_mean": [0.0] * 3, "pixel_std": [1.0] * 3, "test": loader}
    cfg = {
        "model": L(LevelClassifier)(num_classes=len(NAMES)),
        "dataloader": data,
        "train": {"device": "cpu", "init_checkpoint": ""},
    }
    LazyConfig.save(OmegaConf.create(cfg, flags={"allow_objects": True}), str(path))
    return path


def write_weights(path, names=NAMES):
    metadata = {"metadata": {"classes": names}} if names else {}
    torch.save({"model": {"levels": LEVELS}, **metadata}, path)
    return path
