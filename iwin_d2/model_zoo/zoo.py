"""Configs, models and published weights, by name."""

import fnmatch
import functools
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from omegaconf import DictConfig
from torch import nn

from ..checkpoint import load_pretrained
from ..checkpoint.download import BASE_URL
from ..checkpoint.published import PUBLISHED, Published
from ..config_overrides import did_you_mean
from ..d2.framework import USE_DETECTRON2
from ..engine.build import build
from ..engine.cli import name_missing_values, pick_device
from ..engine.config_file import load_config
from ..errors import ConfigError

__all__ = ["get", "get_checkpoint_url", "get_config", "get_config_file", "list_models"]

# Where `projects` and `configs` are: in this folder, where setup.py installs them, or beside the
# package, where it is used from its repository.
_ROOTS = (Path(__file__).resolve().parent, Path(__file__).resolve().parents[2])

# Configs that know nothing of their classes before they are told a data set.
_FOR_OWN_DATA = re.compile(r"custom_|quickstart")
# Configs of data sets that native does not have.
_DETECTRON2_ALONE = re.compile(r"_(lvis_v1|voc0712)$")
# What configs are called for which weights may be published, and what these are called.
_WEIGHTS = (
    (
        r"(?P<kind>\w+)_iwin_(?P<size>[tsb])_(?P<epochs>[13]x)_coco",
        "iwin_{size}_window7_{kind}_{epochs}_coco",
    ),
    (r"upernet_iwin_(?P<size>[tsb])_512_160k_ade20k", "iwin_{size}_patch4_window7_512_ade20k_1k"),
    (r"iwin_(?P<size>[tsb])_(?P<side>\d+)_imagenet1k", "iwin_{size}_patch4_window{window}_{side}"),
    (
        r"iwin_(?P<size>[bl])_(?P<side>\d+)_(?:imagenet)?(?P<data>22k|22kto1k)",
        "iwin_{size}_patch4_window{window}_{side}_{data}",
    ),
)
_SIZES = {"t": "tiny", "s": "small", "b": "base", "l": "large"}
_WINDOWS = {"224": 7, "384": 12, "512": 16, "1024": 16}


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the models that `get` builds here, sorted.

    Those for LVIS and Pascal VOC are among them where Detectron2 runs. The configs for data of
    one's own (custom_coco, custom_folder, ...) are not, for they have no number of classes of
    their own, but `get_config` takes them.

    Args:
        pattern: such as "cascade*_iwin_t_*"; an asterisk stands for anything.
    """
    names = [
        name
        for name in _configs()
        if not _FOR_OWN_DATA.search(name) and (USE_DETECTRON2 or not _DETECTRON2_ALONE.search(name))
    ]
    return fnmatch.filter(names, pattern)


def get_config_file(name: str) -> str:
    """Return the path of a config.

    Args:
        name: such as "mask_rcnn/mask_rcnn_iwin_t_1x_coco", with or without .py.

    Raises:
        ConfigError: there is none of that name; says which comes near.
    """
    configs = _configs()
    key = str(name).replace("\\", "/").removesuffix(".py")
    if key not in configs:
        hint = did_you_mean(key, configs) or (
            " iwin_d2.model_zoo.list_models() lists what there is."
        )
        raise ConfigError(f"there is no model {name!r}.{hint}")
    return str(configs[key])


def get_config(name: str, trained: bool = False, *, overrides: Sequence[str] = ()) -> DictConfig:
    """Load a config.

    Args:
        name: as for `get_config_file`.
        trained: whether train.init_checkpoint is to be the published weights.
        overrides: such as "model.roi_heads.num_classes=3".

    Raises:
        ConfigError: there is no such config, or no such weights; an override cannot be applied.
    """
    cfg = load_config(get_config_file(name), list(overrides))
    if trained:
        cfg.train.init_checkpoint = _published(name).name
    return cfg


def get_checkpoint_url(name: str) -> str:
    """Return the address of the weights that the authors of Iwin publish for a config.

    `get(name, trained=True)` fetches them, and `load_pretrained` takes the address, too.

    Args:
        name: as for `get_config_file`.

    Raises:
        ConfigError: there is no such config, or none are published; says for which there are.
    """
    return BASE_URL + _published(name).file_name


def get(
    name: str,
    trained: bool = False,
    device: str | None = None,
    *,
    weights: str | PathLike | None = None,
    overrides: Sequence[str] = (),
) -> nn.Module:
    """Build a model, in training mode as Detectron2's `model_zoo.get` does.

    Args:
        name: as for `get_config_file`.
        trained: whether to load the published weights, which are fetched once into a cache.
        device: where to put it; None for CUDA where there is any, else the CPU.
        weights: what to load instead: whatever `iwin_d2.checkpoint.load_pretrained` takes.
        overrides: such as "model.backbone.bottom_up.freeze_at=2".

    Raises:
        ConfigError: there is no such model, or it cannot be built so.
        CheckpointError: the weights cannot be had or do not fit.
    """
    if trained and weights is not None:
        raise ConfigError(
            f"trained=True and weights={str(weights)!r} exclude each other: leave one out."
        )
    cfg = get_config(name, trained, overrides=overrides)
    place = pick_device(device or cfg.train.device)
    with name_missing_values():
        model = build(cfg, "model")
    source = cfg.train.init_checkpoint if trained else weights
    if source is not None:
        load_pretrained(model, source)
    return model.to(place)


@functools.cache
def _configs() -> dict[str, Path]:
    """All configs of the projects by their names, sorted."""
    for root in _ROOTS:
        found = {
            f"{path.parents[1].name}/{path.stem}": path
            for path in sorted((root / "projects").glob("*/configs/*.py"))
        }
        if found:
            return found
    raise ConfigError(
        f"the configs are neither in {_ROOTS[0]} nor in {_ROOTS[1]}: install this package by pip, "
        "or use it from its repository."
    )


def _published(name: str) -> Published:
    """The published weights of a config."""
    published = {key: found for key in _configs() if (found := _published_for(key)) is not None}
    key = str(name).removesuffix(".py")
    if key not in published:
        get_config_file(name)  # an unknown name is the first thing to say
        raise ConfigError(
            f"no weights are published for {key}: there are some for {', '.join(published)}."
        )
    return published[key]


def _published_for(key: str) -> Published | None:
    for pattern, weights in _WEIGHTS:
        found = re.fullmatch(pattern, key.rpartition("/")[2])
        if found is not None:
            parts = found.groupdict()
            parts["window"] = _WINDOWS.get(parts.get("side", ""))
            return PUBLISHED.get(weights.format(**{**parts, "size": _SIZES[parts["size"]]}))
    return None
