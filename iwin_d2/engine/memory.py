"""What to say, and to try, when memory runs out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..errors import TrainingError

__all__ = ["explain_out_of_memory", "is_out_of_memory"]

# What torch says of an allocation that fails on the CPU: a RuntimeError without a class of its own.
_CPU_MESSAGES = ("can't allocate memory", "not enough memory")


@contextmanager
def explain_out_of_memory(model: nn.Module) -> Iterator[None]:
    """Within the block, turn running out of memory into a TrainingError with the model's inputs."""
    last: dict[str, Any] = {"sizes": "none yet", "training": model.training}

    def note(module: nn.Module, args: tuple) -> None:
        last.update(sizes=_sizes(args[0] if args else ()), training=module.training)

    hook = model.register_forward_pre_hook(note)
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        advice = (
            "lower dataloader.train.total_batch_size (train.accumulation_steps makes up for it), "
            "make images smaller (short_edge_length and max_size of ResizeShortestEdge, or "
            "crop_size), set train.amp.enabled=True or use_checkpoint=True of the backbone"
            if last["training"]
            else "lower the batch size of dataloader.test, or make its images smaller (also by "
            "train.test_time_augmentation.scales, where that is enabled)"
        )
        first_line = str(error).strip().splitlines()[0]
        raise TrainingError(
            f"Out of memory with input images of {last['sizes']} ({first_line}): {advice}."
        ) from error
    finally:
        hook.remove()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch means that memory has run out."""
    if isinstance(error, torch.OutOfMemoryError):  # a RuntimeError, too
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_MESSAGES)


def _sizes(batch: Any) -> str:
    """The sizes of a batch's images, channels x height x width."""
    if not isinstance(batch, (list, tuple)):
        return "unknown size"
    images = [item["image"] for item in batch if isinstance(item, dict) and "image" in item]
    shapes = ["x".join(map(str, image.shape)) for image in images]
    return ", ".join(shapes) or "unknown size"
