"""UPerNet, Iwin-T, 160,000 iterations of Cityscapes, 512x1024 (this project's own)."""

from ....configs.common.data.cityscapes import NUM_CLASSES, dataloader
from .upernet_iwin_t_512_160k_ade20k import lr_multiplier, model, optimizer, train

model.sem_seg_head.num_classes = NUM_CLASSES
train.output_dir = "./output/upernet_iwin_t_512x1024_160k_cityscapes"
