"""UPerNet, Iwin-B, 160,000 iterations of ADE20K, 512x512: 48.90 mIoU as published."""

from .upernet_iwin_s_512_160k_ade20k import dataloader, lr_multiplier, model, optimizer, train

model.backbone.update(embed_dim=128, num_heads=[4, 8, 16, 32])
train.output_dir = "./output/upernet_iwin_b_512_160k_ade20k"
