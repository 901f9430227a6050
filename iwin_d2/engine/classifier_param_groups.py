"""Weight decay and learning rates of a classifier's parameters, as in the published recipes."""

import logging
from collections.abc import Sequence

from torch import nn

from ..errors import ConfigError
from .param_groups import layer_lr_factors

__all__ = ["get_classifier_param_groups"]

logger = logging.getLogger(__name__)


def get_classifier_param_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    *,
    no_decay: Sequence[str] = ("norm",),
    decay_vectors: bool = False,
    backbone: str = "",
    backbone_factor: float = 1.0,
    layer_decay: float | None = None,
) -> list[dict]:
    """Group the trainable parameters of a classifier by learning rate and weight decay.

    Args:
        model: the classifier.
        lr: learning rate of the head.
        weight_decay: of all parameters but those below.
        no_decay: a parameter does not decay if its name contains one of these: "norm" is the
            recipe for videos.
        decay_vectors: whether parameters of one dimension decay, which are biases and the weights
            of norms: not in the recipe for images.
        backbone: what the names of the backbone's parameters begin with: "backbone." in a
            `VideoClassifier`, "" in an `IwinClassifier`.
        backbone_factor: the backbone's learning rate is this times `lr`.
        layer_decay: lowers the learning rate by this factor from layer to layer of the backbone,
            counted as `layer_lr_factors` does; None for one rate.

    Returns:
        groups for torch.optim, each with `lr` and `weight_decay`; frozen parameters are in none.

    Raises:
        ConfigError: a factor makes no sense, or no parameter belongs to such a backbone.
    """
    if not 0 <= backbone_factor <= 1:
        raise ConfigError(
            f"optimizer.params.backbone_factor={backbone_factor} makes no sense: set it to a "
            "number from 0 to 1."
        )
    layers = getattr(model.get_submodule(backbone.rstrip(".")) if backbone else model, "layers", ())
    if not layers and (layer_decay is not None or backbone_factor != 1):
        raise ConfigError(
            f"optimizer.params: there is no Iwin backbone under {backbone!r} whose layers could "
            "have learning rates of their own: unset layer_decay and backbone_factor."
        )
    factor = lambda name: 1.0  # noqa: E731
    if layer_decay is not None:
        factor = layer_lr_factors(layer_decay, [len(stage.blocks) for stage in layers], backbone)
    heads = _names_outside(model, backbone)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        exempt = any(part in name for part in no_decay)
        exempt |= parameter.dim() == 1 and not decay_vectors
        rate = lr * factor(name) * (1.0 if name in heads else backbone_factor)
        groups.setdefault((rate, 0.0 if exempt else weight_decay), []).append(parameter)
    for (rate, decay), parameters in groups.items():
        logger.debug("Learning rate %g, weight decay %g: %d", rate, decay, len(parameters))
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def _names_outside(model: nn.Module, backbone: str) -> set[str]:
    """The names of the parameters that do not belong to the backbone."""
    names = [name for name, _ in model.named_parameters()]
    if backbone:
        return {name for name in names if not name.startswith(backbone)}
    return {name for name in names if name.startswith("head.")}
