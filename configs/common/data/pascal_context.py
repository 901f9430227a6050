"""Pascal Context: 16 crops of 480x480 a batch, test images fitted into 520x520.

59 classes, or 60 with the background, as model.sem_seg_head.num_classes says.

This project's own: none is published for Iwin.
"""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.data.semantic_segmentation import register_pascal_context

from .semantic_segmentation import dataloader, use_sizes

NUM_CLASSES = 59
_COUNT = "${model.sem_seg_head.num_classes}"

dataloader.train.dataset.names = L(register_pascal_context)(split="training", num_classes=_COUNT)
dataloader.test.dataset.names = L(register_pascal_context)(split="validation", num_classes=_COUNT)
use_sizes(dataloader, scale=(520, 520), crop=(480, 480), short_side=520, long_side=520)
