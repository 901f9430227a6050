"""Weights of image models for video models, and of clips for clips of another length."""

import torch.nn.functional as F
from torch import Tensor

__all__ = ["inflate", "inflation_note", "interpolate_time"]


def inflate(weight: Tensor, frames: int) -> Tensor:
    """Make the patch embedding of images one of clips: Tensor[C, in_chans, frames, 4, 4].

    A still clip gives what its frame gave before (`iwin_d2.modeling.inflate_2d_to_3d` does the
    same to a whole state dict).

    Args:
        weight: Tensor[C, in_chans, 4, 4].
        frames: of a patch.
    """
    return weight.unsqueeze(2).repeat_interleave(frames, 2) / frames


def inflation_note(path: str, frames: int) -> str:
    """Say in a report that the patches of an image model were inflated."""
    return (
        f"inflated: the weights of the patches are repeated over {frames} frames and divided by "
        f"{frames}, for {path} is of an image model"
    )


def interpolate_time(embedding: Tensor, steps: int) -> Tensor:
    """Stretch a time embedding, Tensor[1, C, T, 1, 1], over so many steps, as the model does."""
    stretched = F.interpolate(embedding.float().flatten(2), steps, mode="linear")
    return stretched[..., None, None].to(embedding.dtype)
