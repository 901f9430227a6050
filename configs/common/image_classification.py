"""The published recipe for ImageNet: AdamW, 300 epochs, cosine, mixup and CutMix, 224 pixels."""

import os

import torch

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.engine.classifier_param_groups import get_classifier_param_groups

from .data.image_folder import dataloader, dataset, set_side
from .schedules import cosine_schedule
from .train_classifier import train

_DATASETS = os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))


def set_folders(name):
    """Take the data from the folders train and val of a folder in DETECTRON2_DATASETS."""
    dataset.update({"train": f"{_DATASETS}/{name}/train", "test": f"{_DATASETS}/{name}/val"})


set_folders("imagenet")

optimizer = L(torch.optim.AdamW)(
    params=L(get_classifier_param_groups)(
        lr="${..lr}",
        weight_decay="${..weight_decay}",
        layer_decay=None,
    ),
    lr=5e-4,  # for 512 images a step
    betas=(0.9, 0.999),
    weight_decay=0.05,
)
lr_multiplier = cosine_schedule(warmup_length=20 / 300, warmup_factor=0.001, end=0.01)

train.update(
    epochs={"max": 300, "eval": 1, "checkpoint": 1},
    lr_reference_batch_size=512,
    clip_grad=5.0,
    label_smoothing=0.1,
    mixing={"mixup": 0.8, "cutmix": 1.0, "probability": 1.0, "switch_probability": 0.5},
    best_checkpoint={"metric": "classification/top1", "mode": "max"},
)
train["amp"]["enabled"] = True


def fine_tune(side, init_checkpoint, classes="same"):
    """Train published weights on, for 30 epochs, at another size or for other classes."""
    if side != 224:
        set_side(dataloader, side)
    train["init_checkpoint"] = init_checkpoint
    train["init_options"]["classes"] = classes
    train["epochs"]["max"] = 30
    optimizer.update(lr=2e-5, weight_decay=1e-8)
    lr_multiplier.warmup_length = 5 / 30
