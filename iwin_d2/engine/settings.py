"""The `train` section of a config, read and checked in one place."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from ..checkpoint import LoadOptions
from ..checkpoint.options import make_options
from ..errors import ConfigError
from ..modeling.tta import SCALES

__all__ = ["SlidingWindowSettings", "TTASettings", "TrainSettings"]

_DTYPES = {
    "float16": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
}


@dataclass(frozen=True)
class TrainSettings:
    """What the training loop does beside what Detectron2's own configs say.

    Each has its default where a config, such as one of Detectron2's, does not name it.

    Attributes:
        amp: whether to train in mixed precision.
        amp_dtype: of mixed precision; None leaves it to the trainer.
        clip_grad: the largest norm of all gradients together; None for no limit.
        accumulation_steps: batches for one step.
        deterministic: whether only algorithms that repeat their results are taken.
        ema_decay: of the moving average of the weights; None for no average.
        best_metric: the result by which model_best.pth is chosen; None for no such file.
        best_mode: "max" or "min".
        tensorboard: whether to write for TensorBoard, where that is installed.
        sample_images: of how many test images the predictions are drawn there.
        init_options: how train.init_checkpoint is loaded.
        val_loss_period: iterations between two measurements of the losses on validation data;
            0 for none.
        lr_reference_batch_size: images a step that optimizer.lr is meant for; None takes it as
            it is.
    """

    amp: bool
    amp_dtype: torch.dtype | None
    clip_grad: float | None
    accumulation_steps: int
    deterministic: bool
    ema_decay: float | None
    best_metric: str | None
    best_mode: str
    val_loss_period: int
    lr_reference_batch_size: int | None
    tensorboard: bool
    sample_images: int
    init_options: LoadOptions

    @classmethod
    def read(cls, train: DictConfig) -> "TrainSettings":
        """Read a config's `train` section; check also what Detectron2's own settings say.

        Raises:
            ConfigError: for a value that makes no sense.
        """
        section = _Section(train)
        _check_common(section)
        TTASettings.read(train)
        SlidingWindowSettings.read(train)
        ema = section.flag("ema.enabled")
        return cls(
            amp=section.flag("amp.enabled"),
            amp_dtype=_DTYPES[name] if (name := section.choice("amp.dtype", _DTYPES)) else None,
            clip_grad=section.number("clip_grad", low=0),
            accumulation_steps=section.count("accumulation_steps", 1, low=1),
            deterministic=section.flag("deterministic"),
            ema_decay=section.number("ema.decay", low=0, high=1) if ema else None,
            best_metric=section.text("best_checkpoint.metric"),
            best_mode=section.choice("best_checkpoint.mode", ("max", "min")) or "max",
            val_loss_period=section.count("val_loss_period", 0, low=0),
            lr_reference_batch_size=section.count("lr_reference_batch_size", None, low=1),
            tensorboard=section.flag("tensorboard.enabled", default=True),
            sample_images=section.count("tensorboard.sample_images", 4, low=0),
            init_options=make_options("train.init_options.", **section.mapping("init_options")),
        )


@dataclass(frozen=True)
class TTASettings:
    """How a model is evaluated and predicts with test-time augmentation.

    Attributes:
        scales: the sizes in which it sees an image, relative to what dataloader.test makes of it.
        flip: whether it sees each flipped, too.
    """

    scales: tuple[float, ...]
    flip: bool

    @classmethod
    def read(cls, train: DictConfig | None) -> "TTASettings | None":
        """Read a config's `train` section; None where it does not ask for test-time augmentation.

        Raises:
            ConfigError: for a value that makes no sense.
        """
        section = _Section(train if train is not None else DictConfig({}))
        if not section.flag("test_time_augmentation.enabled"):
            return None
        return cls(
            scales=section.numbers("test_time_augmentation.scales", SCALES, low=0),
            flip=section.flag("test_time_augmentation.flip", default=True),
        )


@dataclass(frozen=True)
class SlidingWindowSettings:
    """How a segmenter is evaluated and predicts window by window.

    Attributes:
        window: height and width of a window in pixels of what dataloader.test makes of an image.
        stride: from one window to the next, down and to the right; no more than the window.
        batch_size: windows in one pass of the model; None for what suits the device.
    """

    window: tuple[int, int]
    stride: tuple[int, int]
    batch_size: int | None

    @classmethod
    def read(cls, train: DictConfig | None) -> "SlidingWindowSettings | None":
        """Read a config's `train` section; None where it does not ask for sliding windows.

        Raises:
            ConfigError: for a value that makes no sense.
        """
        section = _Section(train if train is not None else DictConfig({}))
        if not section.flag("sliding_window.enabled"):
            return None
        window, stride = (section.sides(f"sliding_window.{key}") for key in ("window", "stride"))
        if any(step > side for step, side in zip(stride, window)):
            raise ConfigError(
                f"train.sliding_window.stride={list(stride)} leaves pixels that no window of "
                f"{list(window)} sees: set it to no more than the window."
            )
        return cls(window, stride, section.count("sliding_window.batch_size", None, low=1))


def _check_common(section: "_Section") -> None:
    """Check the settings that Detectron2's configs have, too; they are read where they are used."""
    section.count("max_iter", None, low=1)
    section.count("log_period", None, low=1)
    section.count("eval_period", None)
    section.count("checkpointer.period", None, low=1)
    section.count("checkpointer.max_to_keep", None, low=1)
    section.count("seed", None)
    section.text("output_dir")
    for path, wanted in (("seed", "a whole number"), ("output_dir", "a folder")):
        section.filled(path, wanted)
    section.text("init_checkpoint")
    section.flag("ddp.broadcast_buffers")
    section.flag("ddp.find_unused_parameters")
    section.flag("ddp.fp16_compression")


class _Section:
    """Reads values by their dotted paths; a ConfigError says which one is wrong."""

    def __init__(self, config: DictConfig):
        self._config = config

    def _get(self, path: str) -> Any:
        value: Any = self._config
        keys = path.split(".")
        for depth, key in enumerate(keys):
            if value is None:
                return None
            if not isinstance(value, DictConfig):
                section = ".".join(keys[:depth])
                wanted = f"a mapping with the key {key}, or set train.{section}.{key} alone"
                raise self._wrong(section, value, wanted)
            # Indexing, unlike get(), complains of values left at ???; for `in` those are not there.
            there = key in value or OmegaConf.is_missing(value, key)
            value = value[key] if there else None
        return value

    def _wrong(self, path: str, value: Any, wanted: str) -> ConfigError:
        return ConfigError(f"train.{path}={value} makes no sense: set it to {wanted}.")

    def flag(self, path: str, default: bool = False) -> bool:
        value = self._get(path)
        if value not in (None, True, False):
            raise self._wrong(path, value, "True or False")
        return default if value is None else bool(value)

    def count(self, path: str, default: int | None, low: int | None = None) -> int | None:
        value = self._get(path)
        if value is None:
            return default
        if type(value) is not int or (low is not None and value < low):
            bound = "" if low is None else f", {low} or more"
            raise self._wrong(path, value, f"a whole number{bound}")
        return value

    def filled(self, path: str, wanted: str) -> None:
        """Refuse None and "" for what may be left out."""
        if path in self._config and self._get(path) in (None, ""):
            raise self._wrong(path, repr(self._get(path)), wanted)

    def number(self, path: str, low: float, high: float = math.inf) -> float | None:
        value = self._get(path)
        if value is None:
            return None
        if type(value) not in (int, float) or not low < value < high:
            above = f"above {low}" if high == math.inf else f"between {low} and {high}"
            raise self._wrong(path, value, f"a number {above}")
        return float(value)

    def numbers(self, path: str, default: tuple[float, ...], low: float) -> tuple[float, ...]:
        values = self._get(path)
        if values is None:
            return default
        listed = list(values) if isinstance(values, ListConfig) else []
        if not listed or not all(type(v) in (int, float) and low < v < math.inf for v in listed):
            raise self._wrong(path, values, f"a list of numbers above {low}")
        return tuple(float(value) for value in listed)

    def sides(self, path: str) -> tuple[int, int]:
        """A height and a width; one number is both."""
        value = self._get(path)
        both = list(value) if isinstance(value, ListConfig) else [value, value]
        if len(both) != 2 or not all(type(side) is int and side >= 1 for side in both):
            raise self._wrong(path, value, "two whole numbers, height and width, 1 or more each")
        return both[0], both[1]

    def text(self, path: str) -> str | None:
        value = self._get(path)
        if value is not None and not isinstance(value, str):
            raise self._wrong(path, value, "a name")
        return value or None

    def mapping(self, path: str) -> dict[str, Any]:
        value = self._get(path)
        if value is not None and not isinstance(value, DictConfig):
            raise self._wrong(path, value, "a mapping")
        return {} if value is None else OmegaConf.to_container(value, resolve=True)

    def choice(self, path: str, choices: Any) -> str | None:
        value = self._get(path)
        if value is not None and value not in choices:
            raise self._wrong(path, value, " or ".join(choices))
        return value
