"""torch's layers and functions with the arguments that the models' builders expect."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Conv2d", "ConvTranspose2d", "Linear", "cat", "cross_entropy", "nonzero_tuple"]

# torch's own serve empty batches.
ConvTranspose2d = nn.ConvTranspose2d
Linear = nn.Linear


class Conv2d(nn.Conv2d):
    """A convolution, then optionally a normalisation and an activation.

    Args:
        *args: as `torch.nn.Conv2d`.
        norm: a module, kept under the name `norm`, or None.
        activation: a function of the result, or None.
        **kwargs: as `torch.nn.Conv2d`.
    """

    def __init__(
        self,
        *args,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map Tensor[N, C_in, H, W] to Tensor[N, C_out, H', W']."""
        x = super().forward(x)
        if self.norm is not None:
            x = self.norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Concatenate; a single tensor is returned as it is, without a copy."""
    if len(tensors) == 1:
        return tensors[0]
    return torch.cat(tensors, dim)


def cross_entropy(input: Tensor, target: Tensor, *, reduction: str = "mean", **kwargs) -> Tensor:
    """As `F.cross_entropy`, but the mean over no targets is 0 (with a gradient), not NaN."""
    if target.numel() == 0 and reduction == "mean":
        return input.sum() * 0.0
    return F.cross_entropy(input, target, reduction=reduction, **kwargs)


def nonzero_tuple(x: Tensor) -> tuple[Tensor, ...]:
    """Return the indices of the elements that are not zero, one tensor a dimension."""
    return x.nonzero(as_tuple=True)
