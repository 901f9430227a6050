"""What the networks of all tasks have in common: their sizes, four stages, and freezing."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .blocks import Downsample, IwinBlock

__all__ = ["SIZES", "STAGES", "Freezable", "Stage", "init_weights", "make_stages", "sized"]

STAGES = 4

# The published sizes, as keyword arguments. The ImageNet-1K classifiers of size "small" have
# other heads (`iwin_d2.modeling.published`).
SIZES = {
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
    "large": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)},
}


def sized(size: str, overrides: dict) -> dict:
    """The keyword arguments of a published size, but for those given."""
    return {**SIZES[size], **overrides}


class Stage(nn.Module):
    """Blocks of one resolution, and the downsampling that leads to the next."""

    def __init__(
        self, blocks: list[IwinBlock], downsample: Downsample | None, use_checkpoint: bool
    ):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample
        self.use_checkpoint = use_checkpoint

    def forward(self, x: Tensor) -> Tensor:
        """Map Tensor[B, (T,) H, W, C] to the same shape (the downsampling is the caller's)."""
        for block in self.blocks:
            if self.use_checkpoint and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x


def make_stages(
    *,
    embed_dim: int,
    depths: Sequence[int],
    num_heads: Sequence[int],
    window_size: int | Sequence[int],
    mlp_ratio: float,
    drop_path_rate: float,
    use_checkpoint: bool | Sequence[bool],
    depthwise: Sequence[bool],
    shrink_window: bool = False,
    count: int = STAGES,
) -> nn.ModuleList:
    """Build the stages of a network.

    Args:
        embed_dim: channels of the first stage; each stage doubles them.
        depths: blocks of each of the four stages.
        num_heads: attention heads of each stage.
        window_size: side of a window, or (height, width).
        mlp_ratio: hidden channels of the MLP as a multiple of the stage's channels.
        drop_path_rate: stochastic depth, from 0 at the first block linearly to this at the last.
        use_checkpoint: activation checkpointing of all stages, or of each.
        depthwise: whether the blocks of each stage have the depthwise convolution.
        shrink_window: whether windows become smaller on maps that are smaller than they.
        count: how many stages to build; the last has no downsampling.

    Raises:
        ValueError: these settings contradict each other.
    """
    if len(depths) != STAGES or len(num_heads) != STAGES:
        raise ValueError(
            f"expected four stages, got depths={tuple(depths)}, num_heads={tuple(num_heads)}"
        )
    if not 0 <= drop_path_rate <= 1:
        raise ValueError(f"drop_path_rate must lie between 0 and 1, got {drop_path_rate}")
    checkpoints = [use_checkpoint] * STAGES if isinstance(use_checkpoint, bool) else use_checkpoint
    if len(checkpoints) != STAGES:
        raise ValueError(f"use_checkpoint must be a bool or four of them, got {use_checkpoint}")
    rates = iter(drop_path_rate * i / max(sum(depths) - 1, 1) for i in range(sum(depths)))
    stages = nn.ModuleList()
    for index in range(count):
        dim = embed_dim * 2**index
        blocks = [
            IwinBlock(
                dim,
                num_heads[index],
                window_size,
                mlp_ratio,
                next(rates),
                depthwise=depthwise[index],
                shrink_window=shrink_window,
            )
            for _ in range(depths[index])
        ]
        downsample = Downsample(dim) if index < count - 1 else None
        stages.append(Stage(blocks, downsample, checkpoints[index]))
    return stages


def init_weights(module: nn.Module) -> None:
    """Truncated normal (0.02) for a linear layer; other layers keep PyTorch's own."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


class Freezable:
    """The part of a network with `patch_embed` and `layers` that can be kept from training."""

    freeze_at = 0

    def train(self, mode: bool = True):
        """Switch between training and evaluation; frozen parts stay in evaluation."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def _frozen_modules(self) -> list[nn.Module]:
        """Return what `freeze_at` freezes: the patch embedding, then stage by stage."""
        # A stage's downsampling counts to it; what comes behind the stages stays trainable.
        return [self.patch_embed, *self.layers][: self.freeze_at]

    def _freeze(self, freeze_at: int) -> None:
        """Freeze so many parts, for good.

        Raises:
            ValueError: there are not so many.
        """
        if not 0 <= freeze_at <= STAGES + 1:
            raise ValueError(f"freeze_at must lie between 0 and {STAGES + 1}, got {freeze_at}")
        self.freeze_at = freeze_at
        for module in self._frozen_modules():
            module.eval().requires_grad_(False)
