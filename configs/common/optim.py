"""AdamW as published: no weight decay on the backbone's LayerNorms."""

import torch

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.engine.param_groups import get_param_groups

AdamW = L(torch.optim.AdamW)(
    lr=1e-4,
    betas=(0.9, 0.999),
    weight_decay=0.05,
    params=L(get_param_groups)(
        lr="${..lr}",
        weight_decay="${..weight_decay}",
        # Such as 0.8: the learning rate falls by this factor from layer to layer of the backbone,
        # the last one first. None, as published: one rate everywhere.
        layer_decay=None,
    ),
)
