"""The published recipe for video: AdamW, 30 epochs, cosine to 0, the backbone at a tenth."""

import torch

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.engine.classifier_param_groups import get_classifier_param_groups

from .data.video_list import dataloader, dataset
from .schedules import cosine_schedule
from .train_classifier import train

optimizer = L(torch.optim.AdamW)(
    params=L(get_classifier_param_groups)(
        lr="${..lr}",
        weight_decay="${..weight_decay}",
        decay_vectors=True,  # biases decay, norms do not
        backbone="backbone.",
        backbone_factor=0.1,
        layer_decay=None,
    ),
    lr=1e-3,
    betas=(0.9, 0.999),
    weight_decay=0.02,
)
lr_multiplier = cosine_schedule(warmup_length=2.5 / 30, warmup_factor=0.1, end=0.0)

train.update(
    epochs={"max": 30, "eval": 5, "checkpoint": 1},
    best_checkpoint={"metric": "classification/top1", "mode": "max"},
    # 8 clips on each of 8 GPUs, and so many batches for one step.
    accumulation_steps=4,
)
train["amp"]["enabled"] = True
