"""The config of the bright-pixel detector, images enlarged twofold before it."""

import bright_detector

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.data import transforms as T
from iwin_d2.data.mapper import DetectionMapper

model = L(bright_detector.BrightDetector)()
dataloader = {
    "test": {
        "dataset": {"names": "bright_demo_test"},
        "mapper": L(DetectionMapper)(
            is_train=False,
            augmentations=[L(T.ResizeShortestEdge)(short_edge_length=80, max_size=1000)],
            image_format="RGB",
        ),
    }
}
train = {"device": "cpu", "init_checkpoint": ""}
