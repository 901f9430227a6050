"""UPerNet, Iwin-T, 80,000 iterations of Pascal Context, 480x480 (this project's own)."""

from ....configs.common.data.pascal_context import NUM_CLASSES, dataloader
from ....configs.common.schedules import polynomial_schedule
from .upernet_iwin_t_512_160k_ade20k import model, optimizer, train

model.sem_seg_head.num_classes = NUM_CLASSES
train.max_iter = 80_000
lr_multiplier = polynomial_schedule(train.max_iter)
train.eval_period = train.checkpointer.period = 8000
train.output_dir = "./output/upernet_iwin_t_480_80k_pascal_context"
