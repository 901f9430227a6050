"""AdamW as published: no weight decay on the backbone's LayerNorms."""

import torch

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.engine.param_groups import get_param_groups

AdamW = L(torch.optim.AdamW)(
    params=L(get_param_groups)(weight_decay="${..weight_decay}"),
    lr=1e-4,
    betas=(0.9, 0.999),
    weight_decay=0.05,
)
