"""The blocks of video backbone T at their four sizes: ours, as published, and torchvision's.

Patches of 2x4x4, a learned time embedding, blocks whose windows hold 7 x 7 tokens of every frame,
the depthwise convolution and the downsampling frame by frame, a final LayerNorm.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torchvision.models.video import swin3d_t

from ..modeling.blocks import Downsample, IwinBlock
from . import steps
from .models import OURS, PUBLISHED, Goals, compare
from .published import use_published_blocks
from .target import CPU, Target

__all__ = ["VideoStack", "benchmark_video"]

SWIN3D = "torchvision swin3d_t features"
_PATCH = (2, 4, 4)


class VideoStack(nn.Module):
    """Patch embedding, time embedding and the four stages, with the parts of the 2D backbone."""

    def __init__(
        self,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        num_frames: int = 32,
    ):
        super().__init__()
        self.proj = nn.Conv3d(3, embed_dim, kernel_size=_PATCH, stride=_PATCH)
        self.patch_norm = nn.LayerNorm(embed_dim)
        self.time_embed = nn.Parameter(torch.zeros(1, num_frames // _PATCH[0], 1, 1, embed_dim))
        self.stages = nn.ModuleList()
        self.downsamples = nn.ModuleList()
        last = len(depths) - 1
        for index, (depth, heads) in enumerate(zip(depths, num_heads)):
            dim = embed_dim * 2**index
            blocks = [
                IwinBlock(dim, heads, window_size, depthwise=index < last) for _ in range(depth)
            ]
            self.stages.append(nn.Sequential(*blocks))
            self.downsamples.append(Downsample(dim) if index < last else nn.Identity())
        self.norm = nn.LayerNorm(dim)

    def forward(self, clips: Tensor) -> Tensor:
        """Map Tensor[B, 3, T, H, W] to Tensor[B, T / 2, H / 32, W / 32, 8 * C]."""
        x = self.patch_norm(self.proj(clips).permute(0, 2, 3, 4, 1)) + self.time_embed
        for blocks, downsample in zip(self.stages, self.downsamples):
            x = downsample(blocks(x))
        return self.norm(x)


def benchmark_video(rounds: int = 5, target: Target = CPU) -> Iterator[str]:
    """Compare inference on a clip of 32 frames; on a GPU, training steps on eight."""
    if target.is_gpu:
        yield from steps.compare(
            "video backbone T, training step, 8x32x224x224, eager",
            MODELS,
            (8, 3, 32, 224, 224),
            Goals(faster={PUBLISHED: "at least 2"}),
            rounds,
            target,
        )
        return
    yield from compare(
        "video backbone T, inference, 1x32x224x224",
        MODELS,
        (1, 3, 32, 224, 224),
        Goals(
            faster={PUBLISHED: "at least 3", SWIN3D: "at least 1.5"},
            memory={PUBLISHED: "at most 0.5"},
        ),
        rounds,
    )


def _published() -> nn.Module:
    return use_published_blocks(VideoStack())


def _swin3d() -> nn.Module:
    model = swin3d_t()
    return nn.Sequential(model.patch_embed, model.pos_drop, model.features, model.norm)


MODELS = {OURS: VideoStack, PUBLISHED: _published, SWIN3D: _swin3d}
