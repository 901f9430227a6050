"""Which parameters weight decay holds for."""

import logging
from collections.abc import Sequence

from torch import nn

__all__ = ["get_param_groups"]

logger = logging.getLogger(__name__)


def get_param_groups(
    model: nn.Module,
    lr: float | None = None,
    weight_decay: float | None = None,
    no_decay: Sequence[str] = ("norm",),
    within: str = "backbone.bottom_up.",
) -> list[dict]:
    """Group the trainable parameters of a detector: with weight decay, and without.

    The published recipe has no weight decay on parameters whose name contains "norm". In the
    published models those are the backbone's LayerNorms alone: the BatchNorms of the box heads
    are called "bn" there, and do decay. Here they are called "norm" (box_head.conv1.norm), so the
    rule is kept to the backbone by `within`. Biases decay, as published.

    Args:
        model: the detector.
        lr: learning rate of both groups; None leaves it to the optimizer.
        weight_decay: of the first group; None leaves it to the optimizer.
        no_decay: a parameter does not decay if its name contains one of these ...
        within: ... and begins with this.

    Returns:
        Groups for torch.optim: the decaying parameters, then the others. Frozen parameters are in
        neither, shared ones are there once, and a group without parameters is left out.
    """
    decaying, exempt = {}, {}
    for name, parameter in model.named_parameters():  # names a shared parameter once
        if parameter.requires_grad:
            inside = name.startswith(within) and any(part in name for part in no_decay)
            (exempt if inside else decaying)[name] = parameter
    if not any(name.startswith(within) for name, _ in model.named_parameters()):
        logger.warning(
            "No parameter name begins with %r, so weight decay holds for all of them.", within
        )
    settings = {} if lr is None else {"lr": lr}
    decay = {} if weight_decay is None else {"weight_decay": weight_decay}
    groups = [
        {"params": list(decaying.values()), **settings, **decay},
        {"params": list(exempt.values()), **settings, "weight_decay": 0.0},
    ]
    for title, names in (("with", decaying), ("without", exempt)):
        logger.debug("Parameters %s weight decay (%d): %s", title, len(names), ", ".join(names))
    return [group for group in groups if group["params"]]
