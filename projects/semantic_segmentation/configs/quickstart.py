"""The small UPerNet on the generated images of tools/quickstart.py segmentation.

They are made by iwin_d2/data/segmentation_shapes.py: a background and four shapes.
"""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.data import transforms as T

from ....configs.common.data.semantic_segmentation import use_sizes
from .custom_folder_small import dataloader, dataset, lr_multiplier, model, optimizer, train

dataset.update(
    train_images="datasets/quickstart_segmentation/images/training",
    train_labels="datasets/quickstart_segmentation/annotations/training",
    test_images="datasets/quickstart_segmentation/images/validation",
    test_labels="datasets/quickstart_segmentation/annotations/validation",
    classes="datasets/quickstart_segmentation/classes.txt",
)
# The images are generated at 160 px. The shapes may be turned upside down.
dataloader.evaluator.save_labels = True  # to be drawn
use_sizes(dataloader, scale=(112, 112), crop=(112, 112), short_side=112, long_side=112)
dataloader.train.mapper.augmentations[0].ratio_range = (0.9, 1.1)
dataloader.train.mapper.augmentations.insert(3, L(T.RandomFlip)(horizontal=False, vertical=True))
dataloader.train.total_batch_size = 8

optimizer.lr = 2e-3
train.seed = 1
train.max_iter = 2000
train.eval_period = 0
train.checkpointer.period = 1000
train.output_dir = "./output/upernet_quickstart"
