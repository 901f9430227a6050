"""What to say, and to try, when memory runs out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..errors import TrainingError

__all__ = ["explain_out_of_memory", "is_out_of_memory"]

# What to try for detectors and segmenters; a classifier's images and clips have another size.
_TRAINING = (
    "lower dataloader.train.total_batch_size (train.accumulation_steps makes up for it), make "
    "images smaller (short_edge_length and max_size of ResizeShortestEdge, or crop_size), set "
    "train.amp.enabled=True or use_checkpoint=True of the backbone"
)
_TRAINING_CLASSIFIER = (
    "lower dataloader.train.total_batch_size (train.accumulation_steps makes up for it), set "
    "train.amp.enabled=True or the Iwin model's use_checkpoint=True, or make images and clips "
    "smaller"
)
_TEST = (
    "lower the batch size of dataloader.test, or make its images smaller (also by "
    "train.test_time_augmentation.scales, where that is enabled), or set "
    "train.sliding_window.enabled=True for a segmenter"
)
_TEST_CLASSIFIER = (
    "lower dataloader.test.batch_size, or model.clips_at_once of a video classifier, or make "
    "images and clips smaller"
)

# What torch says of an allocation that fails on the CPU: a RuntimeError without a class of its own.
_CPU_MESSAGES = ("can't allocate memory", "not enough memory")


@contextmanager
def explain_out_of_memory(model: nn.Module, classifier: bool = False) -> Iterator[None]:
    """Within the block, turn running out of memory into a TrainingError with the model's inputs.

    Args:
        model: what is called with a batch: a list of dicts, or a Tensor.
        classifier: whether what to try is that of classifiers.
    """
    last: dict[str, Any] = {"sizes": "none yet", "training": model.training}

    def note(module: nn.Module, args: tuple) -> None:
        last.update(sizes=_sizes(args[0] if args else ()), training=module.training)

    hook = model.register_forward_pre_hook(note)
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if classifier:
            advice = _TRAINING_CLASSIFIER if last["training"] else _TEST_CLASSIFIER
        else:
            advice = _TRAINING if last["training"] else _TEST
        first_line = str(error).strip().splitlines()[0]
        what = "input" if classifier else "input images"
        raise TrainingError(
            f"Out of memory with {what} of {last['sizes']} ({first_line}): {advice}."
        ) from error
    finally:
        hook.remove()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch means that memory has run out."""
    if isinstance(error, torch.OutOfMemoryError):  # a RuntimeError, too
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_MESSAGES)


def _sizes(batch: Any) -> str:
    """The sizes of a batch's images or videos, [views x] channels [x frames] x height x width."""
    if isinstance(batch, torch.Tensor):
        return "x".join(map(str, batch.shape))
    if not isinstance(batch, (list, tuple)):
        return "unknown size"
    items = [item for item in batch if isinstance(item, dict)]
    inputs = [item[key] for item in items for key in ("image", "video") if key in item]
    shapes = ["x".join(map(str, value.shape)) for value in inputs]
    return ", ".join(shapes) or "unknown size"
