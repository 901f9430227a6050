"""The small UPerNet on the generated images of `make quickstart-segmentation`.

A background and four shapes, at 80 px (iwin_d2/data/segmentation_shapes.py); by themselves:

    tools/make_shapes_dataset.py datasets/quickstart_segmentation --task semantic_segmentation
        --num-train 800 --num-val 100 --image-size 80 80
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
dataloader.evaluator.save_labels = True  # to be drawn
# The images are taken as they are. Colours say nothing of these classes; what is upside down is the
# same shape.
use_sizes(dataloader, scale=(80, 80), crop=(80, 80), short_side=80, long_side=80)
_resize, _crop, _flip, _, _pad = dataloader.train.mapper.augmentations
_resize.ratio_range = (1.0, 1.0)
_upside_down = L(T.RandomFlip)(horizontal=False, vertical=True)
dataloader.train.mapper.augmentations = [_resize, _crop, _flip, _upside_down, _pad]
dataloader.train.total_batch_size = 8

model.backbone.window_size = 5  # divides the maps, of 20, 10 and 5 px

optimizer.lr = 2e-3
train.seed = 1
train.max_iter = 4000
train.eval_period = 0
train.checkpointer.period = 2000
train.output_dir = "./output/upernet_quickstart"
