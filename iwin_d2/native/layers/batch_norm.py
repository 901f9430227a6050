"""Normalisation layers, and how configs name them."""

from collections.abc import Callable

import torch
import torchvision.ops
from torch import Tensor, nn

__all__ = ["FrozenBatchNorm2d", "LayerNorm", "get_norm"]


class FrozenBatchNorm2d(torchvision.ops.FrozenBatchNorm2d):
    """Batch norm whose statistics and affine parameters are fixed buffers.

    A fresh one is the identity exactly: its variance makes up for `eps`.
    """

    def __init__(self, num_features: int, eps: float = 1e-5):
        super().__init__(num_features, eps)
        self.running_var.sub_(eps)

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """Replace every BatchNorm and SyncBatchNorm in `module`, in place, by a frozen one.

        Returns:
            The module; the new layer where it was itself a batch norm.
        """
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)):
            frozen = cls(module.num_features, module.eps).to(module.running_mean.device)
            names = ("weight", "bias") if module.affine else ()
            for name in (*names, "running_mean", "running_var"):
                getattr(frozen, name).copy_(getattr(module, name).detach())
            return frozen
        for name, child in module.named_children():
            converted = cls.convert_frozen_batchnorm(child)
            if converted is not child:
                setattr(module, name, converted)
        return module


class LayerNorm(nn.Module):
    """Layer norm over the channels of a channels-first map, at every position on its own.

    Args:
        normalized_shape: number of channels C of the input Tensor[N, C, H, W].
        eps: added to the variance.
    """

    def __init__(self, normalized_shape: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(normalized_shape))
        self.bias = nn.Parameter(torch.zeros(normalized_shape))
        self.eps = eps
        self.normalized_shape = (normalized_shape,)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise Tensor[N, C, H, W] over C."""
        channels_last = x.permute(0, 2, 3, 1)
        x = nn.functional.layer_norm(
            channels_last, self.normalized_shape, self.weight, self.bias, self.eps
        )
        return x.permute(0, 3, 1, 2)


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": nn.BatchNorm2d,
    # In a single process, and on CPU, torch's own falls back to plain batch norm.
    "SyncBN": nn.SyncBatchNorm,
    "FrozenBN": FrozenBatchNorm2d,
    "GN": lambda channels: nn.GroupNorm(32, channels),
    "LN": LayerNorm,
}


def get_norm(norm: str | Callable[[int], nn.Module] | None, out_channels: int) -> nn.Module | None:
    """Build a normalisation layer.

    Args:
        norm: "BN", "SyncBN", "FrozenBN", "GN", "LN", or a callable that takes the number of
            channels; "" or None for no layer.
        out_channels: number of channels.

    Raises:
        KeyError: a name that is not known.
    """
    if norm is None or norm == "":
        return None
    if isinstance(norm, str):
        if norm not in _NORMS:
            raise KeyError(f"norm {norm!r} is not known; use one of {sorted(_NORMS)} or a callable")
        norm = _NORMS[norm]
    return norm(out_channels)
