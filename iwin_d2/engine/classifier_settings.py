"""What a classifier's config says beside what every config's `train` section does."""

import logging
import math
from dataclasses import dataclass

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..errors import ConfigError
from .settings import TrainSettings

__all__ = ["ClassifierSettings", "Mixing", "set_iterations"]

logger = logging.getLogger(__name__)

# What detectors and segmenters have, and how it is off.
_NOT_OURS = {
    "test_time_augmentation.enabled": False,
    "sliding_window.enabled": False,
    "val_loss_period": 0,
}


@dataclass(frozen=True)
class Mixing:
    """Mixup and CutMix of the clips or images of a batch; torchvision's.

    Attributes:
        mixup: alpha of the beta distribution that shares are drawn from; 0 for no mixup.
        cutmix: likewise.
        probability: that a batch is mixed at all.
        switch_probability: that it is CutMix, where both are wanted.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    switch_probability: float = 0.5

    def __call__(self, inputs: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            inputs: float Tensor[B, 3, H, W] or Tensor[B, 3, T, H, W].
            labels: int64 Tensor[B].
            classes: how many there are.

        Returns:
            the inputs, and int64 labels as they were or shares of classes, Tensor[B, classes].
        """
        if not (self.mixup or self.cutmix) or float(torch.rand(())) >= self.probability:
            return inputs, labels
        cut = self.cutmix and (not self.mixup or float(torch.rand(())) < self.switch_probability)
        kind = v2.CutMix if cut else v2.MixUp
        mix = kind(alpha=self.cutmix if cut else self.mixup, num_classes=classes)
        wrapper = tv_tensors.Video if inputs.dim() == 5 else tv_tensors.Image
        mixed, shares = mix(wrapper(inputs), labels)
        return mixed.as_subclass(Tensor), shares


@dataclass(frozen=True)
class ClassifierSettings:
    """What the loop of classifiers reads from a config.

    Attributes:
        common: what the loop of detectors and segmenters reads, too.
        label_smoothing: the share of a label that is spread over all classes.
        mixing: of the batches in training.
        fsdp: whether each process holds a part of the model (see sharding.py).
    """

    common: TrainSettings
    label_smoothing: float
    mixing: Mixing
    fsdp: bool

    @classmethod
    def read(cls, train: DictConfig) -> "ClassifierSettings":
        """Read a config's `train` section.

        Raises:
            ConfigError: for a value that makes no sense.
        """
        for key, off in _NOT_OURS.items():
            value = OmegaConf.select(train, key)
            if value not in (None, off):
                raise ConfigError(
                    f"train.{key}={value} is not for classifiers, and nothing would come of it: "
                    "leave it out."
                )
        mixing = train.get("mixing") or {}
        unknown = set(mixing) - set(Mixing.__dataclass_fields__)
        if unknown:
            raise ConfigError(
                f"train.mixing.{min(unknown)} is no setting: there are "
                f"{', '.join(Mixing.__dataclass_fields__)}."
            )
        for key in mixing:
            high = math.inf if key in ("mixup", "cutmix") else 1
            _number(f"train.mixing.{key}", mixing[key], high)
        return cls(
            common=TrainSettings.read(train),
            label_smoothing=_number("train.label_smoothing", train.get("label_smoothing", 0.0), 1),
            mixing=Mixing(**mixing),
            fsdp=_fsdp(train),
        )

    def autocast_dtype(self, device: torch.device) -> torch.dtype:
        """The numbers of mixed precision; the loss is to be scaled for float16."""
        default = torch.float16 if device.type == "cuda" else torch.bfloat16
        return self.common.amp_dtype or default

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean cross entropy.

        Args:
            logits: Tensor[B, classes].
            labels: int64 Tensor[B], or shares of classes Tensor[B, classes].
        """
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)


def set_iterations(cfg: DictConfig, images: int) -> None:
    """Turn what a config counts in epochs into iterations, in `cfg`.

    `train.epochs` has `max`, `eval` and `checkpoint`: the length of the training, and from one
    evaluation or checkpoint to the next. Each stands for train.max_iter, train.eval_period and
    train.checkpointer.period where that is None.

    Args:
        cfg: the config.
        images: in an epoch, or clips.

    Raises:
        ConfigError: one is said neither way, or makes no sense.
    """
    train = cfg.train
    step = cfg.dataloader.train.total_batch_size * (train.get("accumulation_steps") or 1)
    places = {"max": "max_iter", "eval": "eval_period", "checkpoint": "checkpointer.period"}
    for name, key in places.items():
        epochs = OmegaConf.select(train, f"epochs.{name}")
        if OmegaConf.select(train, key) is not None:
            continue
        if epochs is None:
            raise ConfigError(f"Neither train.{key} nor train.epochs.{name} is set: set one.")
        _number(f"train.epochs.{name}", epochs, math.inf)
        iterations = math.ceil(epochs * images / step)
        OmegaConf.update(train, key, iterations if name == "eval" else max(iterations, 1))
    logger.info(
        "%d iterations of %d, %.2f epochs of %d",
        *(train.max_iter, step, train.max_iter * step / images, images),
    )


def _fsdp(train: DictConfig) -> bool:
    enabled = OmegaConf.select(train, "fsdp.enabled")
    if enabled not in (None, True, False):
        raise ConfigError(f"train.fsdp.enabled={enabled} makes no sense: set it to True or False.")
    if enabled and OmegaConf.select(train, "ema.enabled"):
        raise ConfigError(
            "train.ema.enabled=True does not go with train.fsdp.enabled=True, where no process "
            "holds all weights to average: set one of them to False."
        )
    return bool(enabled)


def _number(path: str, value, high: float) -> float:
    if type(value) not in (int, float) or not 0 <= value <= high or value == math.inf:
        most = "" if high == math.inf else f" to {high:g}"
        raise ConfigError(f"{path}={value} makes no sense: set it to a number from 0{most}.")
    return float(value)
