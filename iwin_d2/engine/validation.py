"""The losses of a model on data that it does not learn from."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..d2.config import instantiate
from ..d2.utils import comm
from ..d2.utils.events import EventStorage
from ..errors import ConfigError
from .reproducible import seed_everything

__all__ = ["check_val_loss", "validation_losses"]

logger = logging.getLogger(__name__)


@torch.no_grad()
def validation_losses(model: nn.Module, cfg, seed: int = 0) -> dict[str, float]:
    """The mean losses over cfg.dataloader.val_loss, a test loader with annotations or labels.

    The model computes losses as in training (drawing proposals to learn from at random, seeded for
    each batch so that two measurements compare), but leaves nothing out: no drop path, and
    normalisation by the statistics of training, which stay as they are. Images whose label image
    ignores every pixel stay out of the mean.

    Args:
        model: returns {name: scalar loss} in training mode.
        cfg: the config.
        seed: of the random numbers.

    Returns:
        {name: mean over images, over all processes}, with "total_loss", their sum.

    Raises:
        ConfigError: there is no cfg.dataloader.val_loss, or it has no images that count.
    """
    check_val_loss(cfg)
    sums: dict[str, float] = {}
    count = 0
    # What models record of their losses is not to mix with the training's.
    with _computing_losses(model), EventStorage():
        for number, batch in enumerate(instantiate(cfg.dataloader.val_loss)):
            seed_everything(seed, number, comm.get_rank())
            images = _images_that_count(model, batch)
            for name, loss in model(batch).items() if images else ():
                sums[name] = sums.get(name, 0.0) + float(loss) * images
            count += images
    gathered = comm.all_gather((sums, count))  # a process may have no image at all
    total = sum(count for _, count in gathered)
    if not total:
        raise ConfigError(
            "dataloader.val_loss has no images with anything to learn: set train.val_loss_period=0."
        )
    names = sorted({name for sums, _ in gathered for name in sums})
    means = {name: sum(sums.get(name, 0.0) for sums, _ in gathered) / total for name in names}
    losses = {"total_loss": sum(means.values()), **means}
    logger.info("Losses on validation data: %s", {k: round(v, 5) for k, v in losses.items()})
    return losses


def check_val_loss(cfg) -> None:
    """Raise ConfigError if there is no cfg.dataloader.val_loss."""
    if cfg.dataloader.get("val_loss") is None:
        raise ConfigError(
            "train.val_loss_period is set, but the config has no dataloader.val_loss: add a loader "
            "with annotations or labels, as configs/common/data/coco_instance.py has, or set it to "
            "0."
        )


def _images_that_count(model: nn.Module, batch: list[dict]) -> int:
    """How many images of a batch its losses are of: not those whose pixels are all ignored."""
    ignored = getattr(getattr(model, "sem_seg_head", None), "ignore_value", None)
    if ignored is None:
        return len(batch)
    return sum(
        "sem_seg" not in item or "instances" in item or bool((item["sem_seg"] != ignored).any())
        for item in batch
    )


@contextmanager
def _computing_losses(model: nn.Module) -> Iterator[None]:
    """Make a model return losses, its layers otherwise behaving as in evaluation.

    Models ask their own `training` what to return; the layers that leave out or learn from what
    they see are leaves.
    """
    modes = {module: module.training for module in model.modules()}
    for module in modes:
        module.training = any(True for _ in module.children())
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
