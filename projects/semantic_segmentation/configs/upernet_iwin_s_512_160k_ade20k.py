"""UPerNet, Iwin-S, 160,000 iterations of ADE20K, 512x512: 47.50 mIoU as published."""

from .upernet_iwin_t_512_160k_ade20k import dataloader, lr_multiplier, model, optimizer, train

model.backbone.depths = [2, 2, 18, 2]
train.output_dir = "./output/upernet_iwin_s_512_160k_ade20k"
