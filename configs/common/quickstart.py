"""As custom_coco_small.py, for the generated shapes (iwin_d2/data/shapes.py) of the quick start."""

from .custom_coco_small import dataloader, dataset, lr_multiplier, optimizer, train

dataset.update(
    train_json="datasets/quickstart/annotations/instances_train.json",
    train_images="datasets/quickstart/train",
    test_json="datasets/quickstart/annotations/instances_val.json",
    test_images="datasets/quickstart/val",
)

# The images are generated at 160 px and taken as they are.
dataloader.train.mapper.augmentations[1].update(short_edge_length=[160], max_size=160)
dataloader.test.mapper.augmentations[0].update(short_edge_length=160, max_size=160)
dataloader.train.total_batch_size = 8

train.seed = 1
train.max_iter = 500
train.eval_period = 0
train.checkpointer.period = 250
