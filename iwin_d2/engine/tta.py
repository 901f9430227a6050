"""Test-time augmentation as a config's `train` section asks for it."""

import logging

from omegaconf import DictConfig
from torch import nn

from ..modeling.tta import DetectorWithTTA
from .settings import TTASettings

__all__ = ["as_evaluated"]

logger = logging.getLogger(__name__)


def as_evaluated(model: nn.Module, train: DictConfig | None) -> nn.Module:
    """The model to evaluate: with test-time augmentation where the config asks for it.

    Args:
        model: a detector; it is wrapped, not copied.
        train: the config's section of that name, None where there is none.

    Raises:
        ConfigError: the settings make no sense, or not for this model.
    """
    settings = TTASettings.read(train)
    if settings is None:
        return model
    augmented = DetectorWithTTA(model, settings.scales, settings.flip)
    logger.info(
        "Test-time augmentation: %d views of each image, scales %s%s",
        len(augmented.views),
        ", ".join(f"{scale:g}" for scale in settings.scales),
        ", each flipped, too" if settings.flip else "",
    )
    return augmented
