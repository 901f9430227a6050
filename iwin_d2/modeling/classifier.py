"""The Iwin image classifier (arXiv 2507.18405, section 4.1)."""

from collections.abc import Sequence

from torch import Tensor, nn

from .blocks import PatchEmbed
from .stages import STAGES, Freezable, init_weights, make_stages

__all__ = ["IwinClassifier"]


class IwinClassifier(Freezable, nn.Module):
    """Iwin transformer with a LayerNorm, the mean over the map and a linear layer behind it.

    Parameter names are the published checkpoints' own. Images of any size can be classified. On a
    map that is smaller than the window, the window is as large as the map, each side on its own.

    Args:
        num_classes: 0 for a model without a head, whose result are pooled features.
        img_size: side, in pixels, of the images that it is trained for. It decides which stages
            have the depthwise convolution: those whose map is then larger than the window.
        window_size: side M of a window: as published 7 for 224 pixels, 12 for 384, 16 for 512 and
            1024.
        embed_dim: channels C of the first stage; each stage doubles them.
        depths: blocks of each of the four stages.
        num_heads: attention heads of each stage. They leave no trace in the parameters' shapes;
            the published ImageNet-1K classifiers of size S have others than all other models of
            that size (`iwin_d2.modeling.iwin_classifier` knows them).
        mlp_ratio: hidden channels of the MLP as a multiple of the stage's channels.
        drop_path_rate: stochastic depth, from 0 at the first block linearly to this at the last.
        in_chans: channels of the images.
        patch_size: side of a patch.
        freeze_at: 0 freezes nothing, 1 the patch embedding, 2 also the first stage, and so on.
            Frozen parts stay in eval mode whatever `train()` says.
        use_checkpoint: recompute activations in the backward pass instead of storing them, for
            all stages or for each (a sequence of four).

    Attributes:
        num_classes: of the head.
        num_features: channels of the last map, 8 * C.
        img_size: side of the images that it is trained for.

    Raises:
        ValueError: the settings contradict each other.
    """

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        img_size: int = 224,
        window_size: int = 7,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        in_chans: int = 3,
        patch_size: int = 4,
        freeze_at: int = 0,
        use_checkpoint: bool | Sequence[bool] = False,
    ):
        super().__init__()
        if not (isinstance(img_size, int) and img_size > 0):
            raise ValueError(f"expected img_size to be a side in pixels, got {img_size!r}")
        if not isinstance(window_size, int):
            raise ValueError(f"expected window_size to be one side, got {window_size!r}")
        self.num_features = embed_dim * 2 ** (STAGES - 1)
        self.img_size, self.patch_size = img_size, patch_size
        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
        sides = [-(-img_size // (patch_size * 2**stage)) for stage in range(STAGES)]
        self.layers = make_stages(
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            window_size=window_size,
            mlp_ratio=mlp_ratio,
            drop_path_rate=drop_path_rate,
            use_checkpoint=use_checkpoint,
            depthwise=[side > window_size for side in sides],
            shrink_window=True,
        )
        self.norm = nn.LayerNorm(self.num_features)
        self.apply(init_weights)
        self.reset_classifier(num_classes)
        self._freeze(freeze_at)

    def forward(self, images: Tensor) -> Tensor:
        """Classify a batch.

        Args:
            images: Tensor[B, in_chans, H, W], any H and W, normalised.

        Returns:
            logits Tensor[B, num_classes], or Tensor[B, num_features] without a head.

        Raises:
            ValueError: the images are of another shape.
        """
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Compute the last map, normalised: Tensor[B, num_features, ceil(H / 32), ceil(W / 32)].

        For arguments and errors, see `forward`.
        """
        channels = self.patch_embed.proj.in_channels
        if images.dim() != 4 or images.shape[1] != channels:
            raise ValueError(
                f"expected images of shape [B, {channels}, H, W], got shape {tuple(images.shape)}"
            )
        x = self.patch_embed(images)
        for stage in self.layers:
            x = stage(x)
            if stage.downsample is not None:
                x = stage.downsample(x)
        return self.norm(x).permute(0, 3, 1, 2)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Average a map over its height and width, and classify that.

        Args:
            features: Tensor[B, num_features, H, W], of `forward_features`.
            pre_logits: whether to leave the linear layer out.

        Returns:
            Tensor[B, num_classes]; Tensor[B, num_features] with `pre_logits`.
        """
        pooled = features.mean((2, 3))
        return pooled if pre_logits else self.head(pooled)

    def reset_classifier(self, num_classes: int) -> None:
        """Put a new head, with random weights, in the place of the old one.

        Args:
            num_classes: of the new head; 0 for none.

        Raises:
            ValueError: it is negative.
        """
        if num_classes < 0:
            raise ValueError(f"num_classes must not be negative, got {num_classes}")
        self.num_classes = num_classes
        if num_classes == 0:
            self.head = nn.Identity()
            return
        like = self.norm.weight
        head = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
        init_weights(head)
        self.head = head.train(self.training)
