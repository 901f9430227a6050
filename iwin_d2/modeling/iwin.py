"""The Iwin backbone for detection and segmentation (arXiv 2507.18405, section 3)."""

from collections.abc import Sequence

from torch import Tensor, nn

from ..d2.layers import ShapeSpec
from ..d2.modeling import Backbone
from .blocks import PatchEmbed
from .stages import Freezable, init_weights, make_stages, sized

__all__ = [
    "IwinTransformer",
    "iwin_base",
    "iwin_large",
    "iwin_shapes",
    "iwin_small",
    "iwin_tiny",
]

STAGE_NAMES = ("res2", "res3", "res4", "res5")


class IwinTransformer(Freezable, Backbone):
    """Iwin transformer as a Detectron2 backbone with the interface of Detectron2's ResNet.

    Every published detection and segmentation backbone has the depthwise convolution in the
    first three stages and none in the last, and a window that does not shrink: a map smaller than
    it is padded up to it.

    Args:
        embed_dim: channels C of the first stage; each stage doubles them.
        depths: blocks of each of the four stages.
        num_heads: attention heads of each stage. They leave no trace in the parameters' shapes:
            a checkpoint loads under a wrong count and then computes something else.
        window_size: side M of a window.
        mlp_ratio: hidden channels of the MLP as a multiple of the stage's channels.
        drop_path_rate: stochastic depth, from 0 at the first block linearly to this at the last.
        in_chans: channels of the images.
        patch_size: side of a patch; the strides below assume the published 4.
        out_features: which of "res2", "res3", "res4", "res5" to return, each under a LayerNorm
            of its own (norm0 to norm3).
        freeze_at: 0 freezes nothing, 1 the patch embedding, 2 also the first stage, and so on, as
            in Detectron2's ResNet. Frozen parts stay in eval mode whatever `train()` says.
        use_checkpoint: recompute activations in the backward pass instead of storing them, for
            all stages or for each (a sequence of four).
    """

    def __init__(
        self,
        *,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        in_chans: int = 3,
        patch_size: int = 4,
        out_features: Sequence[str] = STAGE_NAMES,
        freeze_at: int = 0,
        use_checkpoint: bool | Sequence[bool] = False,
    ):
        super().__init__()
        unknown = [name for name in out_features if name not in STAGE_NAMES]
        if unknown or not out_features:
            raise ValueError(
                f"out_features must be some of {STAGE_NAMES}, got {list(out_features)}"
            )

        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
        self.out_features = tuple(name for name in STAGE_NAMES if name in out_features)
        # What lies behind the last map that is asked for is not built: parameters that no output
        # uses would be errors under DistributedDataParallel.
        last = STAGE_NAMES.index(self.out_features[-1])
        self.layers = make_stages(
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            window_size=window_size,
            mlp_ratio=mlp_ratio,
            drop_path_rate=drop_path_rate,
            use_checkpoint=use_checkpoint,
            depthwise=(True, True, True, False),
            count=last + 1,
        )

        channels = {name: embed_dim * 2**i for i, name in enumerate(STAGE_NAMES)}
        self._out_features = list(self.out_features)  # Detectron2's names for these three
        self._out_feature_channels = {name: channels[name] for name in self.out_features}
        self._out_feature_strides = {
            name: patch_size * 2**i for i, name in enumerate(STAGE_NAMES) if name in out_features
        }
        for index, name in enumerate(STAGE_NAMES):
            if name in self.out_features:
                self.add_module(f"norm{index}", nn.LayerNorm(channels[name]))

        self.apply(init_weights)
        self._freeze(freeze_at)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps of a batch.

        Args:
            images: Tensor[B, in_chans, H, W], any H and W, normalised.

        Returns:
            {"res2": .., "res3": .., ..}: Tensor[B, C * 2^i, ceil(H / s), ceil(W / s)] for the
            strides s = 4, 8, 16, 32.
        """
        if images.dim() != 4 or images.shape[1] != self.patch_embed.proj.in_channels:
            raise ValueError(
                f"expected images of shape [B, {self.patch_embed.proj.in_channels}, H, W], "
                f"got shape {tuple(images.shape)}"
            )
        x = self.patch_embed(images)
        outputs = {}
        for index, (name, stage) in enumerate(zip(STAGE_NAMES, self.layers)):
            x = stage(x)
            if name in self.out_features:
                outputs[name] = getattr(self, f"norm{index}")(x).permute(0, 3, 1, 2)
            if stage.downsample is not None:
                x = stage.downsample(x)
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each map that `forward` returns."""
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self.out_features
        }

    @property
    def size_divisibility(self) -> int:
        """0: images of any size are fine (an FPN on top asks for its own multiple)."""
        return 0


def iwin_shapes(embed_dim: int) -> dict[str, ShapeSpec]:
    """Channels and strides of the maps of an IwinTransformer, for configs of heads on them."""
    return {
        name: ShapeSpec(channels=embed_dim * 2**i, stride=4 * 2**i)
        for i, name in enumerate(STAGE_NAMES)
    }


def iwin_tiny(**kwargs) -> IwinTransformer:
    """Build Iwin-T (embed_dim 96; depths 2, 2, 6, 2); keyword arguments as IwinTransformer's."""
    return IwinTransformer(**sized("tiny", kwargs))


def iwin_small(**kwargs) -> IwinTransformer:
    """Build Iwin-S (embed_dim 96; depths 2, 2, 18, 2); keyword arguments as IwinTransformer's.

    The ImageNet-1K classifiers of this size were trained with 3, 4, 8, 16 heads; this function
    gives the 3, 6, 12, 24 of every detector, segmenter and video model.
    """
    return IwinTransformer(**sized("small", kwargs))


def iwin_base(**kwargs) -> IwinTransformer:
    """Build Iwin-B (embed_dim 128; depths 2, 2, 18, 2); keyword arguments as IwinTransformer's."""
    return IwinTransformer(**sized("base", kwargs))


def iwin_large(**kwargs) -> IwinTransformer:
    """Build Iwin-L (embed_dim 192; depths 2, 2, 18, 2); keyword arguments as IwinTransformer's."""
    return IwinTransformer(**sized("large", kwargs))
