"""UPerNet, Iwin-T, 160,000 iterations of ADE20K, 512x512: 44.70 mIoU as published."""

from ....configs.common.data.ade20k import dataloader
from ....configs.common.models.upernet_iwin import model
from ....configs.common.semantic_segmentation import lr_multiplier, optimizer, train

train.output_dir = "./output/upernet_iwin_t_512_160k_ade20k"
