"""Parameter groups for an optimizer."""

from collections.abc import Callable
from typing import Any

from torch import nn

__all__ = ["get_default_optimizer_params"]

_NORM_LAYERS = (
    nn.modules.batchnorm._NormBase,  # batch and instance norms of all dimensions
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


def get_default_optimizer_params(
    model: nn.Module,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    bias_lr_factor: float | None = 1.0,
    weight_decay_bias: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
    overrides: dict[str, dict[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Parameter groups with their own learning rates and weight decays.

    Args:
        model: whose trainable parameters are grouped, each once.
        base_lr: learning rate of every group; None leaves it to the optimizer, and is an error
            where a factor asks for it.
        weight_decay: of every group; None leaves it to the optimizer.
        weight_decay_norm: of parameters of normalisation layers.
        bias_lr_factor: factor on the learning rate of biases.
        weight_decay_bias: of biases.
        lr_factor_func: maps a parameter's full name to a factor on its learning rate.
        overrides: by last part of a parameter's name, what to set for it. {"bias": ..} cannot be
            combined with the arguments for biases.

    Returns:
        Groups for torch.optim; parameters with equal settings share one.

    Raises:
        ValueError: for a factor without base_lr, and for two settings of biases.
    """
    defaults = {"lr": base_lr, "weight_decay": weight_decay}
    defaults = {key: value for key, value in defaults.items() if value is not None}
    overrides = dict(overrides or {})
    if base_lr is None and (lr_factor_func is not None or bias_lr_factor not in (None, 1.0)):
        raise ValueError("bias_lr_factor and lr_factor_func need base_lr.")
    bias = {}
    if bias_lr_factor not in (None, 1.0):
        bias["lr"] = base_lr * bias_lr_factor
    if weight_decay_bias is not None:
        bias["weight_decay"] = weight_decay_bias
    if bias:
        if "bias" in overrides:
            raise ValueError("Set biases either in overrides or by the arguments for biases.")
        overrides["bias"] = bias

    groups: dict[tuple, dict[str, Any]] = {}
    seen = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            settings = dict(defaults)
            if isinstance(module, _NORM_LAYERS) and weight_decay_norm is not None:
                settings["weight_decay"] = weight_decay_norm
            if lr_factor_func is not None:
                settings["lr"] *= lr_factor_func(f"{module_name}.{name}")
            settings.update(overrides.get(name, {}))
            key = tuple(sorted(settings.items()))
            groups.setdefault(key, {"params": [], **settings})["params"].append(parameter)
    return list(groups.values())
