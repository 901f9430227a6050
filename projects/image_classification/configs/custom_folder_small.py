"""A small Iwin that learns from scratch, on a CPU, on your own images of about 64 pixels.

The overrides are those of custom_folder.py.
"""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.data.classification.image_folder import num_image_folder_classes
from iwin_d2.modeling import IwinClassifier

from ....configs.common.data.image_folder import set_side
from .custom_folder import dataloader, dataset, lr_multiplier, optimizer, train

model = L(IwinClassifier)(
    num_classes=L(num_image_folder_classes)(root="${dataset.train}"),
    img_size=64,
    window_size=4,
    embed_dim=32,
    depths=[1, 1, 2, 1],
    num_heads=[1, 2, 4, 8],
    drop_path_rate=0.0,
)
set_side(dataloader, 64)
_crop, _flip, _rand_augment, _erasing = dataloader.train.mapper.augmentations
_crop.scale = [0.8, 1.0]
dataloader.train.mapper.augmentations = [_crop, _flip]
dataloader.train.total_batch_size = 32
dataloader.train.num_workers = 1
dataloader.test.num_workers = 1

optimizer.lr = 5e-4
train.lr_reference_batch_size = None
train.label_smoothing = 0.0
train.mixing.update({"mixup": 0.0, "cutmix": 0.0})
train.amp.enabled = False
train.output_dir = "./output/custom_folder_small"
