"""Which parameters weight decay holds for, and how fast each layer of the backbone learns."""

import logging
import re
from collections.abc import Callable, Sequence

from torch import nn

from ..d2.solver import get_default_optimizer_params
from ..errors import ConfigError

__all__ = ["get_param_groups", "layer_lr_factors"]

logger = logging.getLogger(__name__)

_BACKBONE = "backbone.bottom_up."


def get_param_groups(
    model: nn.Module,
    lr: float | None = None,
    weight_decay: float | None = None,
    no_decay: Sequence[str] = ("norm",),
    within: str = _BACKBONE,
    layer_decay: float | None = None,
) -> list[dict]:
    """Group the trainable parameters of a model: with weight decay, and without.

    The published recipe has no weight decay on parameters whose name contains "norm". In the
    published models those are the backbone's LayerNorms alone: the BatchNorms of the box heads
    are called "bn" there, and do decay. Here they are called "norm" (box_head.conv1.norm), so the
    rule is kept to the backbone by `within`. Biases decay, as published.

    Args:
        model: a detector or a segmenter.
        lr: learning rate of all groups; None leaves it to the optimizer.
        weight_decay: of the first group; None leaves it to the optimizer.
        no_decay: a parameter does not decay if its name contains one of these ...
        within: ... and begins with this.
        layer_decay: lower the rate by this factor from layer to layer of the Iwin backbone under
            `within`, the last one being next to what is not backbone (see `layer_lr_factors`);
            None, as published, for one rate everywhere. Wants `lr`.

    Returns:
        Groups for torch.optim: the decaying parameters, then the others, each in one group for a
        learning rate. Frozen parameters are in neither, shared ones are there once, and a group
        without parameters is left out.

    Raises:
        ConfigError: `layer_decay` makes no sense, or the model has no such backbone.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    if not any(name.startswith(within) for name in names.values()):
        logger.warning(
            "No parameter name begins with %r, so weight decay holds for all of them.", within
        )
    exempt = {
        parameter
        for parameter, name in names.items()
        if name.startswith(within) and any(part in name for part in no_decay)
    }
    factors = None if layer_decay is None else _factors_of(names.values(), layer_decay, within, lr)
    by_rate = get_default_optimizer_params(
        model, base_lr=lr, weight_decay=weight_decay, lr_factor_func=factors
    )
    groups = []
    for title, decays in (("with", True), ("without", False)):
        for group in by_rate:
            chosen = [p for p in group["params"] if (p not in exempt) is decays]
            settings = {} if decays else {"weight_decay": 0.0}
            groups += [{**group, "params": chosen, **settings}] if chosen else []
            logger.debug(
                "Parameters %s weight decay, learning rate %s (%d): %s",
                *(title, group.get("lr", "of the optimizer"), len(chosen)),
                ", ".join(names[p] for p in chosen),
            )
    return groups


def layer_lr_factors(
    layer_decay: float, depths: Sequence[int], within: str = _BACKBONE
) -> Callable[[str], float]:
    """Return the factor on the learning rate of each parameter of a model, by its name.

    Layers are counted over all stages of an Iwin backbone: the patch embedding is layer 0, block
    number i (from 1) layer i, together with the downsampling that follows it, and all else, the
    LayerNorms of the output maps too, is the layer after the last of L blocks. The factor of layer
    i is layer_decay ** (L + 1 - i), as in Detectron2's ViTDet: 1 for what is not backbone.

    Made for `get_default_optimizer_params(lr_factor_func=...)` of Detectron2; `get_param_groups`
    uses it so.

    Args:
        layer_decay: in (0, 1]; 1 for one rate everywhere.
        depths: blocks of each stage.
        within: what the names of the backbone's parameters begin with.

    Raises:
        ConfigError: `layer_decay` makes no sense.
    """
    if isinstance(layer_decay, bool) or not (
        isinstance(layer_decay, (int, float)) and 0 < layer_decay <= 1
    ):
        raise ConfigError(
            f"layer_decay={layer_decay} makes no sense: set it to a factor above 0 and up to 1, "
            "such as 0.8."
        )
    starts = [sum(depths[:stage]) for stage in range(len(depths))]
    last = sum(depths) + 1
    block = re.compile(re.escape(within) + r"layers\.(\d+)\.(?:blocks\.(\d+)|downsample)\.")

    def factor(name: str) -> float:
        found = block.match(name)
        if found is not None:
            stage = int(found[1])
            in_stage = depths[stage] if found[2] is None else int(found[2]) + 1
            return layer_decay ** (last - starts[stage] - in_stage)
        first = (f"{within}patch_embed.", f"{within}time_embed")
        return layer_decay**last if name.startswith(first) else 1.0

    return factor


def _factors_of(names, layer_decay: float, within: str, lr: float | None):
    """`layer_lr_factors` of the backbone that a model's parameters belong to."""
    if lr is None:
        raise ConfigError(
            f"optimizer.params.layer_decay={layer_decay} wants the learning rate that it lowers: "
            'set optimizer.params.lr="${..lr}" in the config.'
        )
    pattern = re.compile(re.escape(within) + r"layers\.(\d+)\.blocks\.(\d+)\.")
    blocks = {(int(m[1]), int(m[2])) for m in map(pattern.match, names) if m}
    if not blocks:
        raise ConfigError(
            f"optimizer.params.layer_decay={layer_decay} is for models with an Iwin backbone under "
            f"{within.rstrip('.')!r}, and this one has none: unset it."
        )
    stages = max(stage for stage, _ in blocks) + 1
    depths = [sum(stage == wanted for stage, _ in blocks) for wanted in range(stages)]
    return layer_lr_factors(layer_decay, depths, within)
