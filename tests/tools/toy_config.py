"""The config of the toy detector, with the keys that every detector's config has."""

import torch
import toy_detector
from fvcore.common.param_scheduler import MultiStepParamScheduler

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.solver import WarmupParamScheduler
from iwin_d2.engine.param_groups import get_param_groups

model = L(toy_detector.ToyDetector)()
dataloader = {
    "train": L(toy_detector.Loader)(total_batch_size=4),
    "test": L(toy_detector.Loader)(endless=False),
    "evaluator": L(toy_detector.ToyEvaluator)(),
}
optimizer = L(torch.optim.AdamW)(
    params=L(get_param_groups)(weight_decay=0.05), lr=0.05, betas=(0.9, 0.999), weight_decay=0.05
)
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(values=[1, 0.1], milestones=[18], num_updates=20),
    warmup_factor=0.1,
    warmup_length=0.1,
)
train = {
    "output_dir": "./output",
    "init_checkpoint": "",
    "max_iter": 20,
    "amp": {"enabled": False},
    "ddp": {"broadcast_buffers": False, "find_unused_parameters": False, "fp16_compression": False},
    "checkpointer": {"period": 8, "max_to_keep": 2},
    "eval_period": 10,
    "log_period": 5,
    "device": "cpu",
    "seed": 3,
}
