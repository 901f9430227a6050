"""How a model is evaluated: the test-time augmentation and windows that a config asks for."""

import logging
from typing import Any

from omegaconf import DictConfig
from torch import nn

from ..errors import ConfigError
from ..modeling.segmentation_inference import SegmenterInference, is_plain_segmenter, is_segmenter
from ..modeling.tta import DetectorWithTTA
from .settings import SlidingWindowSettings, TTASettings

__all__ = ["as_evaluated"]

logger = logging.getLogger(__name__)


def as_evaluated(
    model: nn.Module, train: DictConfig | None, labels_only: bool | None = None
) -> nn.Module:
    """The model to evaluate: with test-time augmentation and windows where the config asks for it.

    A `SemanticSegmentor` always gets the inference of `SegmenterInference`, by which what it makes
    of an image does not depend on the others of the batch.

    Args:
        model: a detector or a segmenter; it is wrapped, not copied.
        train: the config's section of that name, None where there is none.
        labels_only: as for `SegmenterInference`: whether a segmenter is to hold no scores.

    Raises:
        ConfigError: the settings make no sense, or not for this model.
    """
    views, windows = TTASettings.read(train), SlidingWindowSettings.read(train)
    if is_segmenter(model):
        if not (views or windows or is_plain_segmenter(model)):
            return model
        evaluated: nn.Module = _segmenter(model, views, windows, labels_only)
    elif windows is not None:
        raise ConfigError(
            "Sliding windows are for semantic segmentation, but the model is a "
            f"{type(model).__name__}, which has no sem_seg_head alone: set "
            "train.sliding_window.enabled=False."
        )
    elif views is None:
        return model
    else:
        evaluated = DetectorWithTTA(model, views.scales, views.flip)
    if views is not None:
        logger.info(
            "Test-time augmentation: %d views of each image, scales %s%s",
            len(evaluated.views),
            ", ".join(f"{scale:g}" for scale in views.scales),
            ", each flipped, too" if views.flip else "",
        )
    return evaluated


def _segmenter(
    model: nn.Module,
    views: TTASettings | None,
    windows: SlidingWindowSettings | None,
    labels_only: bool | None,
) -> SegmenterInference:
    """A segmenter that sees images as the settings say."""
    seen: dict[str, Any] = {"labels_only": labels_only}
    if views is not None:
        seen.update(scales=views.scales, flip=views.flip)
    if windows is None:
        return SegmenterInference(model, **seen)
    logger.info(
        "Sliding windows of %d x %d pixels (height x width), %d down and %d to the right from one "
        "to the next",
        *windows.window,
        *windows.stride,
    )
    return SegmenterInference(
        model, windows.window, windows.stride, **seen, batch_size=windows.batch_size
    )
