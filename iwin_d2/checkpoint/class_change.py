"""Tensors that have rows for classes, or columns for channels, where the model has others."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["adapt_channels", "is_class_tensor", "is_patch_embedding", "map_classes"]

# Rows of each class, and whether there is another one for the background, behind them.
_CLASS_TENSORS = (
    (re.compile(r"roi_heads\.box_predictor\.(\d+\.)?cls_score\."), 1, True),
    (re.compile(r"roi_heads\.box_predictor\.(\d+\.)?bbox_pred\."), 4, False),
    (re.compile(r"roi_heads\.mask_head\.(\d+\.)?predictor\."), 1, False),
    (re.compile(r"sem_seg_head\.(auxiliary\.)?predictor\."), 1, False),
    (re.compile(r"cls_head\.fc_cls\."), 1, False),
    (re.compile(r"head\.(weight|bias)$"), 1, False),
)
# Of each anchor all classes: not to be mapped, only made anew (RetinaNet, FCOS).
_BY_ANCHOR = re.compile(r"head\.cls_score\.")


def is_class_tensor(name: str) -> bool:
    """Whether the shape of a tensor depends on the number of classes."""
    return bool(_BY_ANCHOR.match(name)) or any(p.match(name) for p, *_ in _CLASS_TENSORS)


def map_classes(name: str, tensor: Tensor, fresh: Tensor, classes: Sequence[int]) -> Tensor | None:
    """Make a class tensor for the model's classes out of the file's.

    Args:
        name: in this project.
        tensor: the file's.
        fresh: the model's, whose rows classes that the file has not keep.
        classes: for each class of the model that of the file, or -1.

    Returns:
        a tensor like `fresh`; None if that cannot be made.
    """
    for pattern, rows, background in _CLASS_TENSORS:
        if not pattern.match(name):
            continue
        if tensor.shape == fresh.shape == (rows, *fresh.shape[1:]) and not background:
            return tensor  # regression that is the same for all classes
        if tensor.dim() != fresh.dim():
            return None
        fits = fresh.shape == (len(classes) * rows + background, *tensor.shape[1:])
        if not fits or max(classes) * rows + rows > len(tensor):
            return None
        result = fresh.detach().clone().to(tensor.device)
        for ours, theirs in enumerate(classes):
            if theirs >= 0:
                found = tensor[theirs * rows : (theirs + 1) * rows]
                result[ours * rows : (ours + 1) * rows] = found
        if background:
            result[-1] = tensor[-1]
        return result
    return None


def is_patch_embedding(name: str) -> bool:
    """Whether a tensor is the convolution on the images."""
    return name.endswith("patch_embed.proj.weight")


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Spread the patch embedding of some channels over others.

    The file's channels serve the model's in turn, sharing their weights where there are more, and
    all of them together where there are fewer: an image whose channels are equal gives what it
    gave before.

    Args:
        weight: Tensor[C, in_chans, ...].
        channels: the model's.

    Returns:
        Tensor[C, channels, ...].
    """
    given = weight.shape[1]
    if channels < given:
        return (weight.sum(1, keepdim=True) / channels).expand(-1, channels, *weight.shape[2:])
    source = torch.arange(channels) % given
    shares = torch.bincount(source)[source].to(weight.dtype)
    return weight[:, source] / shares.view(-1, *[1] * (weight.dim() - 2))
