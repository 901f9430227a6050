"""Iwin's image classifiers as models of timm: `timm.create_model("iwin_tiny_patch4_window7_224")`.

`import iwin_d2` sees to it that they are registered where timm is used (`timm_registration`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

from .checkpoint import load_pretrained
from .modeling.classifier import IwinClassifier
from .modeling.published import IMAGE_CLASSIFIERS

__all__ = ["TimmIwin"]


class TimmIwin(IwinClassifier):
    """An IwinClassifier with what timm's scripts and feature extraction ask of a model.

    Args:
        drop_rate: share of the pooled features that training leaves out.
        global_pool: "avg"; or "" for the map itself, where there is no head.
        **kwargs: of IwinClassifier.
    """

    def __init__(self, *, drop_rate: float = 0.0, global_pool: str = "avg", **kwargs):
        super().__init__(**kwargs)
        self._set_pool(global_pool)
        self.drop_rate = drop_rate
        self.head_hidden_size = self.num_features
        first = self.patch_embed.proj.out_channels
        self.feature_info = [
            {
                "num_chs": first * 2**stage,
                "reduction": self.patch_size * 2**stage,
                "module": f"layers.{stage}",
            }
            for stage in range(len(self.layers))
        ]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """As IwinClassifier's, with dropout before the linear layer."""
        if not self.global_pool:
            return features
        pooled = super().forward_head(features, pre_logits=True)
        if self.drop_rate > 0:
            pooled = F.dropout(pooled, self.drop_rate, self.training)
        return pooled if pre_logits else self.head(pooled)

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new head in the place of the old one, 0 for none, and change the pooling."""
        super().reset_classifier(num_classes)
        if global_pool is not None:
            self._set_pool(global_pool)

    def _set_pool(self, global_pool: str) -> None:
        if global_pool not in (("avg",) if self.num_classes else ("avg", "")):
            raise ValueError(
                f"global_pool can only be avg, or '' without a head, got {global_pool!r}"
            )
        self.global_pool = global_pool

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Compute the maps behind stages, before they are made smaller.

        Args:
            x: images, Tensor[B, in_chans, H, W].
            indices: of the stages; an int for so many from the end, None for all.
            norm: whether to put that of the last stage under the final norm.
            stop_early: whether to leave out the stages behind the last that is asked for.
            output_fmt: "NCHW".
            intermediates_only: whether to return the maps alone.

        Returns:
            the maps, Tensor[B, C * 2^i, H / (4 * 2^i), W / (4 * 2^i)], after the result of
            `forward_features` unless `intermediates_only`.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt can only be NCHW, got {output_fmt}")
        taken, last = _stages(len(self.layers), indices)
        x, maps = self.patch_embed(x), []
        for index, stage in enumerate(self.layers):
            x = stage(x)
            if index in taken:
                normed = norm and index == len(self.layers) - 1
                maps.append((self.norm(x) if normed else x).permute(0, 3, 1, 2))
            if index == last and stop_early and intermediates_only:
                break
            if stage.downsample is not None:
                x = stage.downsample(x)
        return maps if intermediates_only else (self.norm(x).permute(0, 3, 1, 2), maps)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Take away what the maps of these stages are not made with; see `forward_intermediates`.

        Returns:
            the indices of the stages, counted from the first.
        """
        taken, last = _stages(len(self.layers), indices)
        if prune_norm or last < len(self.layers) - 1:
            self.norm = nn.Identity()
        self.layers = self.layers[: last + 1]
        self.layers[-1].downsample = None
        if prune_head:
            self.num_classes, self.head = 0, nn.Identity()
        return taken

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass instead of storing them."""
        for stage in self.layers:
            stage.use_checkpoint = enable

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay, beside norms and biases: none."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups of parameters by depth, for a learning rate that decays with it."""
        blocks = [
            (r"^layers\.(\d+)\.downsample", (0,)),
            (r"^layers\.(\d+)\.blocks\.(\d+)", None),
            (r"^norm", (99999,)),
        ]
        return {"stem": r"^patch_embed", "blocks": r"^layers\.(\d+)" if coarse else blocks}

    def load_pretrained(self, source: str) -> None:
        """Load a file, an address or a published name, as timm asks with pretrained=True.

        A head for other classes, and patches for other channels, are adapted as timm does.
        """
        load_pretrained(self, source, classes="new", channels="adapt")


def _stages(count: int, indices: int | Sequence[int] | None) -> tuple[list[int], int]:
    """The stages that are meant, counted from the first, and the last of them."""
    if indices is None:
        indices = count
    if isinstance(indices, int):
        indices = range(count - indices, count)
    wrong = [index for index in indices if not -count <= index < count]
    if wrong or not len(indices):
        raise ValueError(f"expected indices of {count} stages, got {list(indices)}")
    taken = [index % count for index in indices]
    return taken, max(taken)


def _pretrained_cfg(settings: dict[str, Any]) -> dict[str, Any]:
    side = settings["img_size"]
    return {
        "custom_load": True,  # by `TimmIwin.load_pretrained`
        "num_classes": settings["num_classes"],
        "input_size": (3, side, side),
        "pool_size": (side // 32, side // 32),
        # As published: 224 out of 256 pixels, and all of the image at other resolutions.
        "crop_pct": 224 / 256 if side == 224 else 1.0,
        "crop_mode": "center" if side == 224 else "squash",
        "interpolation": "bicubic",
        "fixed_input_size": False,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "license": "apache-2.0",
    }


def _entrypoint(name: str, settings: dict[str, Any]) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **kwargs) -> nn.Module:
        return build_model_with_cfg(
            TimmIwin,
            name,
            pretrained,
            feature_cfg={"feature_cls": "getter", "out_indices": (0, 1, 2, 3)},
            **{**settings, **kwargs},
        )

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"Iwin transformer {name}."
    return create


# timm finds these by its own name for them. The files are found by `load_pretrained`.
default_cfgs = {
    name: {"file": name, **_pretrained_cfg(settings)}
    for name, settings in IMAGE_CLASSIFIERS.items()
}
for _name, _settings in IMAGE_CLASSIFIERS.items():
    globals()[_name] = register_model(_entrypoint(_name, _settings))
