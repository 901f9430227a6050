"""The config of the segmenter by colour, which sees images as they are."""

import color_segmenter

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.data.mapper import DetectionMapper

model = L(color_segmenter.ColorSegmenter)(gives="sem_seg")
dataloader = {
    "test": {
        "dataset": {"names": "color_demo_test"},
        "mapper": L(DetectionMapper)(is_train=False, augmentations=[], image_format="RGB"),
    }
}
train = {"device": "cpu", "init_checkpoint": ""}
