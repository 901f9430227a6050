"""Cityscapes, 19 classes, fine annotations: 8 crops of 512x1024 a batch, whole images in the test.

This project's own: none is published for Iwin.
"""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.data.semantic_segmentation import register_cityscapes

from .semantic_segmentation import dataloader, use_sizes

NUM_CLASSES = 19

dataloader.train.dataset.names = L(register_cityscapes)(split="training")
dataloader.test.dataset.names = L(register_cityscapes)(split="validation")
use_sizes(dataloader, scale=(2048, 1024), crop=(512, 1024), short_side=1024, long_side=2048)
dataloader.train.total_batch_size = 8
