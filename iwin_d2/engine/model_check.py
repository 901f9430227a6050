"""Whether a model, the config's other parts and the data fit together."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..d2.config import instantiate
from ..d2.data import DatasetCatalog, MetadataCatalog
from ..errors import ConfigError, UserError
from .build import TRACEBACK_HINT, is_of_the_machine, reason_of

__all__ = ["check_num_classes", "dataset_names", "explain_misfit"]

# How layers complain of what they are given.
_COMPLAINTS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)


@contextmanager
def explain_misfit(model: nn.Module) -> Iterator[None]:
    """Within the block, turn the errors of a model's layers into a ConfigError that names one.

    For the first time that a model runs: what fails then are its sizes, or the names of the
    features that it hands from part to part.
    """
    try:
        yield
    except (UserError, FloatingPointError):
        raise
    except _COMPLAINTS as error:
        name = _failed_part(model, error)
        if name is None or is_of_the_machine(error):
            raise
        part = f"model part {name}" if name else "model"
        raise ConfigError(
            f"The {part} cannot take what it is given ({reason_of(error)}): correct the config's "
            f"model, or what its dataloader makes of images {TRACEBACK_HINT}."
        ) from error


def _failed_part(model: nn.Module, error: BaseException) -> str | None:
    """The name of the innermost module that an error came through; None for none of the model."""
    names = {id(module): name for name, module in model.named_modules()}
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        found = names.get(id(frame.f_locals.get("self")), found)
    return found.removeprefix("module.") if found else found


def check_num_classes(model: nn.Module, cfg: DictConfig, part: str) -> None:
    """Compare the number of classes of a model's heads with that of a data set.

    To be called after the data set was loaded, for that is when many tell their classes. A detector
    of too few trains its last classes as background, and a segmenter ends in an error of the GPU
    that tells nothing.

    Args:
        model: with or without `roi_heads` and `sem_seg_head`.
        cfg: the config.
        part: "train" or "test", a part of cfg.dataloader.

    Raises:
        ConfigError: they differ.
    """
    for attribute, kind in (("roi_heads", "thing_classes"), ("sem_seg_head", "stuff_classes")):
        heads = getattr(model, attribute, None)
        if isinstance(heads, nn.Module):
            for name in dataset_names(cfg, part):
                metadata = MetadataCatalog.get(name) if name in DatasetCatalog else None
                classes = metadata.get(kind) if metadata is not None else None
                _check_heads(heads, f"model.{attribute}", name, classes)


def _check_heads(heads: nn.Module, where: str, name: str, classes: list[str] | None) -> None:
    """Raise ConfigError where heads, or a part of them, are for another number of classes."""
    for place, module in heads.named_modules(prefix=where):
        count = getattr(module, "num_classes", None)
        if classes and isinstance(count, int) and count != len(classes):
            raise ConfigError(
                f"{place} is made for {count} classes, but data set {name!r} has "
                f"{len(classes)}: set {where}.num_classes={len(classes)}."
            )


def dataset_names(cfg: DictConfig, part: str) -> list[str]:
    """The names of the data sets of a part of cfg.dataloader, if under dataset.names."""
    names = instantiate(OmegaConf.select(cfg, f"dataloader.{part}.dataset.names"))
    if isinstance(names, str):
        return [names]
    return [str(name) for name in names or ()]
