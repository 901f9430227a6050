"""ADE20K, 150 classes: training and validation set of the scene parsing benchmark."""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.data.semantic_segmentation import register_ade20k

from .semantic_segmentation import dataloader

dataloader.train.dataset.names = L(register_ade20k)(split="training")
dataloader.test.dataset.names = L(register_ade20k)(split="validation")
