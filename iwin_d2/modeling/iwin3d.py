"""The Iwin backbone for video, a classifier on it, and the way there from images."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .stages import STAGES, Freezable, init_weights, make_stages

__all__ = ["IwinTransformer3D", "VideoClassifier", "inflate_2d_to_3d"]


class PatchEmbed3D(nn.Module):
    """Patches of the zero-padded clip, projected and normalised."""

    def __init__(self, patch_size: Sequence[int], in_chans: int, embed_dim: int):
        super().__init__()
        self.patch_size = tuple(patch_size)
        self.proj = nn.Conv3d(
            in_chans, embed_dim, kernel_size=self.patch_size, stride=self.patch_size
        )
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, clips: Tensor) -> Tensor:
        """Map Tensor[B, in_chans, T, H, W] to Tensor[B, ceil(T / 2), ceil(H / 4), ceil(W / 4), C].

        2, 4 and 4 are the sides of a published patch.
        """
        sides = zip(clips.shape[-3:], self.patch_size)
        # As for images: padding by one less than a patch gives the same patches.
        if torch.compiler.is_compiling() or any(side % patch for side, patch in sides):
            depth, height, width = (patch - 1 for patch in self.patch_size)
            clips = F.pad(clips, (0, width, 0, height, 0, depth))
        return self.norm(self.proj(clips).permute(0, 2, 3, 4, 1))


class IwinTransformer3D(Freezable, nn.Module):
    """Iwin transformer on clips: windows are interleaved in space and hold all frames.

    Depthwise convolutions (in the first three stages) and downsampling work frame by frame. A
    learned time embedding tells the frames from each other; it begins at zero. Parameter names are
    the published checkpoints' own. On a map that is smaller than the window, the window is as
    large as the map, each side on its own.

    Args:
        embed_dim: channels C of the first stage; each stage doubles them.
        depths: blocks of each of the four stages.
        num_heads: attention heads of each stage, which leave no trace in the parameters' shapes.
        window_size: side M of a window, or (height, width).
        mlp_ratio: hidden channels of the MLP as a multiple of the stage's channels.
        drop_path_rate: stochastic depth, from 0 at the first block linearly to this at the last.
        in_chans: channels of the frames.
        patch_size: frames, height and width of a patch.
        num_frames: of the clips that the time embedding is made for. For clips of other lengths
            it is interpolated.
        freeze_at: 0 freezes nothing, 1 the patch and time embeddings, 2 also the first stage, and
            so on. Frozen parts stay in eval mode whatever `train()` says.
        use_checkpoint: recompute activations in the backward pass instead of storing them, for
            all stages or for each (a sequence of four).

    Attributes:
        num_features: channels of the result, 8 * C.

    Raises:
        ValueError: the settings contradict each other.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int | Sequence[int] = 7,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        in_chans: int = 3,
        patch_size: Sequence[int] = (2, 4, 4),
        num_frames: int = 32,
        freeze_at: int = 0,
        use_checkpoint: bool | Sequence[bool] = False,
    ):
        super().__init__()
        if len(patch_size) != 3:
            raise ValueError(
                f"expected a patch of (frames, height, width), got patch_size={tuple(patch_size)}"
            )
        if num_frames < patch_size[0]:
            raise ValueError(
                f"num_frames={num_frames} is less than the {patch_size[0]} frames of a patch"
            )
        self.num_features = embed_dim * 2 ** (STAGES - 1)
        self.patch_embed = PatchEmbed3D(patch_size, in_chans, embed_dim)
        steps = -(-num_frames // patch_size[0])
        self.time_embed = nn.Parameter(torch.zeros(1, embed_dim, steps, 1, 1))
        self.layers = make_stages(
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            window_size=window_size,
            mlp_ratio=mlp_ratio,
            drop_path_rate=drop_path_rate,
            use_checkpoint=use_checkpoint,
            depthwise=(True, True, True, False),
            shrink_window=True,
        )
        self.norm = nn.LayerNorm(self.num_features)
        self.apply(init_weights)
        self._freeze(freeze_at)
        self.time_embed.requires_grad_(freeze_at == 0)

    def forward(self, clips: Tensor) -> Tensor:
        """Compute the last map of a batch of clips.

        Args:
            clips: Tensor[B, in_chans, T, H, W], normalised; any H and W, and any T from the frames
                of a patch on. Zeros fill the last patches.

        Returns:
            Tensor[B, num_features, ceil(T / 2), ceil(H / 32), ceil(W / 32)].

        Raises:
            ValueError: the clips are of another shape, or shorter than a patch.
        """
        channels, frames = self.patch_embed.proj.in_channels, self.patch_embed.patch_size[0]
        if clips.dim() != 5 or clips.shape[1] != channels:
            raise ValueError(
                f"expected clips of shape [B, {channels}, T, H, W], got shape {tuple(clips.shape)}"
            )
        if clips.shape[2] < frames:
            raise ValueError(
                f"expected clips of at least {frames} frames, as many as a patch has, got "
                f"{clips.shape[2]} (shape {tuple(clips.shape)})"
            )
        x = self.patch_embed(clips)
        x = x + self._time_embedding(x.shape[1])
        for stage in self.layers:
            x = stage(x)
            if stage.downsample is not None:
                x = stage.downsample(x)
        return self.norm(x).permute(0, 4, 1, 2, 3)

    def _time_embedding(self, steps: int) -> Tensor:
        """The embedding for maps of so many time steps, Tensor[1, steps, 1, 1, C]."""
        embedding = self.time_embed
        # While tracing `steps` may be a symbol; to the same length, interpolating changes nothing.
        if torch.compiler.is_compiling() or steps != embedding.shape[2]:
            embedding = F.interpolate(embedding.flatten(2), steps, mode="linear")[..., None, None]
        return embedding.permute(0, 2, 3, 4, 1)


class VideoHead(nn.Module):
    """The mean over time and space, dropout and a linear layer."""

    def __init__(self, channels: int, num_classes: int, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc_cls = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map Tensor[B, C, T, H, W] to logits Tensor[B, num_classes]."""
        return self.fc_cls(self.dropout(x.mean((2, 3, 4))))


class VideoClassifier(nn.Module):
    """A classifier of clips, and of videos seen in several clips and crops.

    Args:
        backbone: maps Tensor[B, 3, T, H, W] to Tensor[B, num_features, T', H', W'] and has
            `num_features`, as `IwinTransformer3D`.
        num_classes: of the head.
        dropout: the share of the pooled features that training leaves out.
        clips_at_once: of the views of videos, how many at most to compute together; None for all.

    Attributes:
        num_classes: of the head.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        dropout: float = 0.5,
        clips_at_once: int | None = None,
    ):
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be positive, got {num_classes}")
        if clips_at_once is not None and clips_at_once < 1:
            raise ValueError(f"clips_at_once must be positive or None, got {clips_at_once}")
        self.num_classes = num_classes
        self.clips_at_once = clips_at_once
        self.backbone = backbone
        self.cls_head = VideoHead(backbone.num_features, num_classes, dropout)
        init_weights(self.cls_head.fc_cls)

    def forward(self, clips: Tensor) -> Tensor:
        """Classify clips, or videos by several views of each.

        Args:
            clips: Tensor[B, 3, T, H, W], normalised, for clips, or Tensor[B, views, 3, T, H, W]
                for videos.

        Returns:
            of clips the logits Tensor[B, num_classes]; of videos the probabilities
            Tensor[B, num_classes]: the mean of the softmax of each view.

        Raises:
            ValueError: the clips are of another shape, or shorter than a patch of the backbone.
        """
        if clips.dim() == 5:
            return self.cls_head(self.backbone(clips))
        if clips.dim() != 6 or clips.shape[1] < 1:
            raise ValueError(
                "expected clips of shape [B, 3, T, H, W] or [B, views, 3, T, H, W], "
                f"got shape {tuple(clips.shape)}"
            )
        views = clips.flatten(0, 1)
        parts = [views] if self.clips_at_once is None else views.split(self.clips_at_once)
        logits = torch.cat([self.cls_head(self.backbone(part)) for part in parts])
        precise = torch.promote_types(logits.dtype, torch.float32)
        return logits.softmax(-1, dtype=precise).unflatten(0, clips.shape[:2]).mean(1)


def inflate_2d_to_3d(state_dict: Mapping[str, Tensor], patch_depth: int = 2) -> dict[str, Tensor]:
    """Make the weights of a video backbone of those of an image model.

    The convolution of the patches is repeated over time and divided by its depth, and everything
    else is copied, so that a still clip gives in each frame what the image gives (before the time
    embedding is trained). Left out is what a video backbone has not: the class head, and the norms
    of single outputs that backbones for detection have.

    Args:
        state_dict: of an `IwinClassifier` or an `IwinTransformer`, by its own names.
        patch_depth: frames of a patch.

    Returns:
        weights for `IwinTransformer3D`, all but `time_embed` (and `norm`, of an IwinTransformer),
        which stay as they are: `model.load_state_dict(inflated, strict=False)`.

    Raises:
        ValueError: these are not the weights of an Iwin for images.
    """
    if patch_depth < 1:
        raise ValueError(f"patch_depth must be positive, got {patch_depth}")
    patches = state_dict.get(_PATCHES)
    if patches is None or patches.dim() != 4:
        found = "no such tensor" if patches is None else f"shape {tuple(patches.shape)}"
        raise ValueError(
            f"expected the weights of an image model, whose {_PATCHES} has four dimensions, "
            f"got {found}"
        )
    kept = {
        name: tensor
        for name, tensor in state_dict.items()
        if name.split(".")[0] in ("patch_embed", "layers", "norm")
    }
    inflated = patches.unsqueeze(2).repeat_interleave(patch_depth, 2) / patch_depth
    return {**kept, _PATCHES: inflated}


_PATCHES = "patch_embed.proj.weight"
