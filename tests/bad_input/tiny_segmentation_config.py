"""custom_folder_small.py's data and training with a model of one number a class."""

import tiny_segmenter

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.data.semantic_segmentation import num_classes

from ...configs.common.custom_folder_small import (  # noqa: F401 (a config's names are read)
    dataloader,
    dataset,
    lr_multiplier,
    optimizer,
    train,
)

dataloader.train.update(num_workers=0, total_batch_size=2)
dataloader.test.num_workers = 0

model = L(tiny_segmenter.TinySegmenter)(
    num_classes=L(num_classes)(classes="${dataset.classes}", count="${dataset.num_classes}")
)
train.update(max_iter=1, device="cpu")
