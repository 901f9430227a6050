"""Where a token of an interleaved window attends, computed through plain PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..engine.model_check import explain_misfit
from ..errors import ConfigError
from ..modeling.iwin import STAGE_NAMES, IwinTransformer
from ..ops import use_backend
from ..ops.reference import group_counts, partition

__all__ = ["WindowAttention", "find_backbone", "window_attention"]


@dataclass(frozen=True)
class WindowAttention:
    """What one token of a map gives its attention to.

    Rows and columns count the tokens of the map; those from its height or width on are tokens of
    the padding. Sizes are (height, width).

    Attributes:
        stage: "res2" to "res5".
        block: of the stage, from 0.
        stride: pixels of the model's input from one token to the next.
        image_size: of the image as the model takes it, in pixels.
        input_size: of that, padded as the model pads images, in pixels.
        map_size: in tokens.
        groups: windows of the map along each side, and so tokens from one of a window to the next.
        window: (a, b), which of them the token is in.
        token: its row and column.
        rows: int[M_h] of the window's tokens.
        columns: int[M_w].
        weights: float32[heads, M_h, M_w]; a head's add up to 1.
    """

    stage: str
    block: int
    stride: int
    image_size: tuple[int, int]
    input_size: tuple[int, int]
    map_size: tuple[int, int]
    groups: tuple[int, int]
    window: tuple[int, int]
    token: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray
    weights: np.ndarray

    @property
    def padding(self) -> np.ndarray:
        """bool[M_h, M_w]: tokens that fill the map up to whole windows."""
        return (self.rows >= self.map_size[0])[:, None] | (self.columns >= self.map_size[1])[None]

    @property
    def border(self) -> np.ndarray:
        """bool[M_h, M_w]: tokens of the map that begin beyond the image, on the model's padding."""
        height, width = self.image_size
        beyond = (self.rows * self.stride >= height)[:, None]
        return (beyond | (self.columns * self.stride >= width)[None]) & ~self.padding

    @property
    def padded_size(self) -> tuple[int, int]:
        """Of the map in tokens, filled up to whole windows."""
        sides = self.weights.shape[1:]
        return self.groups[0] * sides[0], self.groups[1] * sides[1]

    def share(self, tokens: np.ndarray, head: int | None = None) -> float:
        """The part of the attention that goes to some tokens, of a head or the mean of all."""
        return float(self.of_head(head)[tokens].sum())

    def of_head(self, head: int | None) -> np.ndarray:
        """float32[M_h, M_w]: the weights of a head; their mean over the heads for None."""
        return self.weights.mean(0) if head is None else self.weights[head]


class _ReachedError(Exception):
    """The block is reached: what comes after it is not computed."""


def find_backbone(model: nn.Module) -> IwinTransformer:
    """The Iwin backbone of a model.

    Raises:
        ConfigError: it has none.
    """
    for module in model.modules():
        if isinstance(module, IwinTransformer):
            return module
    backbone = getattr(model, "backbone", None)
    kind = type(getattr(backbone, "bottom_up", backbone or model)).__name__
    raise ConfigError(
        f"The config's model has no Iwin backbone (but {kind}), and only that has interleaved "
        "windows: give a config with IwinTransformer."
    )


def window_attention(
    model: nn.Module,
    model_input: Mapping[str, Any],
    *,
    stage: str,
    block: int | None,
    at: tuple[float, float] | None,
) -> WindowAttention:
    """Compute where a token of a block attends, for one image.

    Args:
        model: a detector or segmenter with an Iwin backbone, or what takes their input.
        model_input: "image", Tensor[C, h, w], as its data mapper makes it.
        stage: "res2" to "res5".
        block: from 0; None for the stage's last.
        at: the x and y in pixels of `image` that the token is to cover; its middle if None.

    Raises:
        ConfigError: there is no such stage, block or pixel, or the model cannot take the image.
    """
    backbone = find_backbone(model)
    number, block = _find_block(backbone, stage, block)
    attn = backbone.layers[number].blocks[block].attn
    image_size = tuple(model_input["image"].shape[-2:])
    x, y = at or (image_size[1] / 2, image_size[0] / 2)
    if not (0 <= x < image_size[1] and 0 <= y < image_size[0]):
        raise ConfigError(f"The point {x:g},{y:g} is outside of the image.")
    normed, input_size = _run_to(model, model_input, backbone, attn)
    stride = backbone.patch_embed.patch_size * 2**number
    size, token = tuple(normed.shape[1:3]), (int(y // stride), int(x // stride))
    sides = (attn.window_size,) * 2 if isinstance(attn.window_size, int) else attn.window_size
    groups = group_counts(size, tuple(sides))
    window = token[0] % groups[0], token[1] % groups[1]
    # Row r of the map is row r // Gh of window r % Gh.
    place = (token[0] // groups[0]) * sides[1] + token[1] // groups[1]
    tokens = partition(normed.unsqueeze(1), tuple(sides))[window[0] * groups[1] + window[1]]
    return WindowAttention(
        stage=stage,
        block=block,
        stride=stride,
        image_size=image_size,
        input_size=input_size,
        map_size=size,
        groups=groups,
        window=window,
        token=token,
        rows=window[0] + groups[0] * np.arange(sides[0]),
        columns=window[1] + groups[1] * np.arange(sides[1]),
        weights=_weights(attn, tokens, place).unflatten(-1, tuple(sides)).numpy(),
    )


def _find_block(backbone: IwinTransformer, stage: str, block: int | None) -> tuple[int, int]:
    """The stage's number from 0, and the block's."""
    built = STAGE_NAMES[: len(backbone.layers)]
    if stage not in built:
        raise ConfigError(f"The backbone has no stage {stage}: give one of {', '.join(built)}.")
    number = built.index(stage)
    last = len(backbone.layers[number].blocks) - 1
    if block is not None and not 0 <= block <= last:
        there = f"its blocks are 0 to {last}" if last else "its only one is 0"
        raise ConfigError(f"Stage {stage} has no block {block}: {there}.")
    return number, last if block is None else block


def _run_to(
    model: nn.Module, model_input: Mapping, backbone: IwinTransformer, attn: nn.Module
) -> tuple[Tensor, tuple[int, int]]:
    """Run the model up to a block's attention.

    Returns:
        the map that it is given, Tensor[1, H, W, C], and the size of the padded image.
    """
    seen = {}

    def remember_size(module, args):
        seen["size"] = tuple(args[0].shape[-2:])

    def stop(module, args):
        seen["map"] = args[0]
        raise _ReachedError

    handles = [
        backbone.register_forward_pre_hook(remember_size),
        attn.register_forward_pre_hook(stop),
    ]
    model.eval()
    try:
        with torch.no_grad(), use_backend("reference"), explain_misfit(model):
            model([dict(model_input)])
    except _ReachedError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if "map" not in seen:
        raise ConfigError("The config's model does not run its Iwin backbone in inference.")
    return seen["map"], seen["size"]


def _weights(attn: nn.Module, tokens: Tensor, place: int) -> Tensor:
    """The attention weights of one token of a window, for each head.

    Args:
        attn: InterleavedWindowAttention.
        tokens: Tensor[N, C] of the window; those of the padding are zeros, as published.
        place: the number of the token that attends.

    Returns:
        float32 Tensor[heads, N], on the CPU.
    """
    with torch.no_grad():
        q, k, _ = attn.qkv(tokens).float().unflatten(-1, (3, attn.num_heads, -1)).unbind(1)
        logits = torch.einsum("hd,nhd->hn", q[place], k) * q.shape[-1] ** -0.5
        return logits.softmax(-1).cpu()
