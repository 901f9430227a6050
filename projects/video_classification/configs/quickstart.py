"""A small Iwin from scratch on generated clips whose classes only motion tells, on a CPU.

tools/make_shapes_dataset.py datasets/motions --task video_classification
tools/train_classifier.py --config-file projects/video_classification/configs/quickstart.py
"""

from .custom_list_small import dataloader, dataset, lr_multiplier, model, optimizer, train

dataset.update(
    train_list="datasets/motions/train.txt",
    test_list="datasets/motions/val.txt",
    classes="datasets/motions/classes.txt",
)
# A flip would make another class of a clip.
_crop, _flip = dataloader.train.mapper.transforms
dataloader.train.mapper.transforms = [_crop]
train.seed = 1
train.epochs.update({"max": 20, "eval": 10, "checkpoint": 5})
train.output_dir = "./output/quickstart_video"
