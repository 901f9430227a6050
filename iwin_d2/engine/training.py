"""What the loops that train share: optimizer, learning rate, processes, where to start."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from omegaconf import DictConfig
from torch import nn

from ..checkpoint import Checkpointer
from ..d2.engine import create_ddp_model
from ..d2.utils import comm
from ..errors import CheckpointError, ConfigError
from ..modeling.sync_batch_norm import convert_sync_batch_norm
from .build import build, is_of_the_machine, reason_of
from .settings import TrainSettings

__all__ = [
    "build_optimizer",
    "distribute",
    "explain_optimizer_of_checkpoint",
    "load_start",
    "save_now",
    "scale_learning_rate",
]

logger = logging.getLogger(__name__)


class Resumable(Protocol):
    """What a checkpoint holds beside the weights; `iter` is the last iteration done."""

    iter: int
    optimizer: torch.optim.Optimizer

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""


def build_optimizer(cfg, model: nn.Module) -> torch.optim.Optimizer:
    """Build the config's optimizer for a model.

    Raises:
        ConfigError: its `params` is no call that could take the model.
    """
    if not isinstance(cfg.optimizer.get("params"), DictConfig):
        raise ConfigError(
            "optimizer.params is no call: a config for this tool has one there that takes the "
            "model, such as params=L(get_param_groups)(weight_decay=0.05)."
        )
    cfg.optimizer.params.model = model
    try:
        return build(cfg, "optimizer")
    finally:
        cfg.optimizer.params.pop("model")  # a config is for settings, and can be saved


@contextmanager
def explain_optimizer_of_checkpoint() -> Iterator[None]:
    """Within the block, an optimizer's first step with a checkpoint's state: a CheckpointError.

    For an optimizer takes over another's state without a word, and then misses what is its own.
    """
    try:
        yield
    except (RuntimeError, LookupError, TypeError, AttributeError) as error:
        if is_of_the_machine(error):
            raise
        raise CheckpointError(
            f"The optimizer cannot go on from the checkpoint ({reason_of(error)}): resume with "
            "the config that it was saved with, or start anew from its weights with "
            "train.init_checkpoint."
        ) from error


def scale_learning_rate(optimizer, train_loader, settings: TrainSettings) -> None:
    """Fit the learning rate to the images a step, where the config asks for it; log both."""
    rates = sorted({group["lr"] for group in optimizer.param_groups}, reverse=True)
    rate = ", ".join(f"{rate:.6g}" for rate in rates)
    images = getattr(train_loader, "total_batch_size", None)  # of Detectron2's loader unknown
    reference = settings.lr_reference_batch_size
    if images is None:
        if reference:
            raise ConfigError(
                "train.lr_reference_batch_size is set, but the training loader does not say its "
                "total_batch_size: unset it, or use iwin_d2.data.loader.build_train_loader."
            )
        logger.info("Learning rate %s", rate)
        return
    images *= settings.accumulation_steps
    text = f"{images} images a step ({comm.get_world_size()} processes"
    text += f", {settings.accumulation_steps} batches accumulated)"
    if not reference:
        logger.info("Learning rate %s for %s, as the config says", rate, text)
        return
    for group in optimizer.param_groups:
        group["lr"] *= images / reference
    logger.info(
        "Learning rate %s for %d images, scaled by %g for %s",
        *(rate, reference, images / reference, text),
    )


def distribute(cfg, model: nn.Module) -> nn.Module:
    """Wrap a model for several processes, with synchronised BatchNorms; alone it stays as it is."""
    model = convert_sync_batch_norm(model)
    options = dict(cfg.train.get("ddp", {}))
    if torch.device(cfg.train.device).type == "cpu":
        options["device_ids"] = None  # Detectron2's would name GPUs
    return create_ddp_model(model, **options)


def save_now(checkpointer: Checkpointer, trainer: Resumable) -> str:
    """Save a checkpoint to resume from outside of the schedule, in whichever process this is."""
    name = f"model_{trainer.iter:07d}" if trainer.iter >= 0 else "model_initial"
    writes = checkpointer.save_to_disk
    checkpointer.save_to_disk = True
    try:
        checkpointer.save(name, iteration=trainer.iter)
    finally:
        checkpointer.save_to_disk = writes
    return os.path.join(checkpointer.save_dir, f"{name}.pth")


def load_start(cfg, checkpointer: Checkpointer, trainer: Resumable, resume: bool) -> int:
    """Load weights, or all of a checkpoint to resume; return the iteration to start from."""
    resuming = resume and checkpointer.has_checkpoint()
    if resume and not resuming:
        start = cfg.train.init_checkpoint or "scratch"
        logger.info(
            "--resume: no checkpoint in %s yet, so starting from %s.", cfg.train.output_dir, start
        )
    configured = [_options(group) for group in trainer.optimizer.param_groups]
    options = TrainSettings.read(cfg.train).init_options
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume, options=options)
    if not resuming:
        return 0
    _prefer_configured(trainer.optimizer, configured)
    if trainer.iter + 1 >= cfg.train.max_iter:
        logger.info(
            "Trained up to iteration %d already: raise train.max_iter to go on.", trainer.iter + 1
        )
    return trainer.iter + 1  # the checkpoint's is the last one done


def _options(group: dict) -> dict:
    return {name: value for name, value in group.items() if name != "params"}


def _prefer_configured(optimizer: torch.optim.Optimizer, configured: list[dict]) -> None:
    """Let the config's learning rate, weight decay, ... win over those of the checkpoint."""
    for group, options in zip(optimizer.param_groups, configured):
        # The checkpoint's "lr" is the one the schedule had come to, "initial_lr" the config's.
        wanted = {"initial_lr" if name == "lr" else name: v for name, v in options.items()}
        for name, value in wanted.items():
            if group.get(name, value) != value:
                logger.info("Resuming with %s=%s, it was %s", name, value, group[name])
            group[name] = value
