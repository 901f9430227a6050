"""The classes of a trained model: how many, what they are called, the data set's ids for them.

Known from the checkpoint where it says so, else from the data sets of the config. Detectron2's
metadata call classes of objects `thing_classes` and classes of pixels `stuff_classes`; those of
classifiers are `classes` here (Detectron2 takes `class_names` for those of objects).
"""

import logging
import re
from collections.abc import Iterator
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..checkpoint.provenance import class_names
from ..config_overrides import locate
from ..d2.config import instantiate
from ..d2.data import DatasetCatalog, Metadata, MetadataCatalog
from ..data.class_file import num_classes
from ..data.classification.image_folder import num_image_folder_classes
from ..data.coco import num_coco_classes
from ..data.coco_json import read_coco_json, read_single_list
from ..data.video.records import num_video_classes
from ..errors import ConfigError, UserError

__all__ = [
    "dataset_ids",
    "find_metadata",
    "read_checkpoint_metadata",
    "settle_num_classes",
    "training_classes",
]

logger = logging.getLogger(__name__)

_THINGS, _STUFF, _CLASSES = "thing_classes", "stuff_classes", "classes"
# What configs count classes with: which kinds, the argument that names a file, and what that has.
_COUNTING = {
    num_coco_classes: ((_THINGS,), "json_file", "the annotations"),
    num_classes: ((_STUFF, _CLASSES), "classes", "the list of the classes"),
    num_image_folder_classes: ((_CLASSES,), "root", "the folder of images"),
    num_video_classes: ((_CLASSES,), "list_file", "the list of the videos"),
}


def read_checkpoint_metadata(path: str):
    """What a checkpoint says of its classes, None where it says nothing.

    Under "metadata" that is a dict of `thing_classes`, `stuff_classes` or, of classifiers,
    `classes`, lists of names, and optionally `thing_dataset_id_to_contiguous_id`, a dict from
    the data set's category ids to class numbers; files of OpenMMLab have names alone.
    """
    try:
        # Mapped, not read: the weights stay on the disk.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        names = class_names(content)
        found = content.get("metadata") or {}
        ids = found.get("thing_dataset_id_to_contiguous_id") or {}
    except Exception:  # may still be fine as weights; whoever loads those says if it is not
        return None
    if not names:
        return None
    return Metadata(
        name=str(path),
        thing_dataset_id_to_contiguous_id={int(key): int(value) for key, value in ids.items()},
        **names,
    )


def training_classes(cfg: DictConfig) -> dict[str, Any] | None:
    """What a checkpoint of this training should say under "metadata"; None if that is unknown.

    Of classifiers that is what their evaluator calls the classes.
    """
    classes = _evaluator_classes(cfg)
    if classes is not None:
        return {_CLASSES: classes}
    names = OmegaConf.select(cfg, "dataloader.train.dataset.names")
    try:
        metadata = None if names is None else _dataset_metadata(names)
    except Exception as error:  # a config may load its data in a way of its own
        logger.debug("No class names for checkpoints: %s", error)
        return None
    if metadata is None:
        return None
    known: dict[str, Any] = {
        kind: [str(name) for name in metadata.get(kind)]
        for kind in (_THINGS, _STUFF)
        if metadata.get(kind)
    }
    if _THINGS in known:
        ids = metadata.get("thing_dataset_id_to_contiguous_id") or {}
        known["thing_dataset_id_to_contiguous_id"] = {int(key): int(ids[key]) for key in ids}
    return known


def settle_num_classes(cfg: DictConfig, metadata=None) -> None:
    """Make sure, before the model is built, that its number of classes is known.

    Configs for data of one's own count the categories of the training json
    (`L(num_coco_classes)(json_file=...)`), the lines of a class file (`L(num_classes)(...)`), the
    folders of images or the labels in a list of videos. Where the checkpoint names its classes,
    their number takes the place of that, in `cfg`, and no file is needed.

    Args:
        cfg: a config with model.
        metadata: the checkpoint's, or None.

    Raises:
        ConfigError: the file is needed and not at hand; says what to add.
    """
    model = OmegaConf.to_container(cfg.model, resolve=False)
    for path, call, function in _counting_calls(model, ["model"]):
        kinds, argument, counted = _COUNTING[function]
        key = ".".join(path)
        found = [metadata.get(kind) for kind in kinds] if metadata is not None else []
        names = next(filter(None, found), None)
        if names:
            OmegaConf.update(cfg, key, len(names), merge=False)
            continue
        try:
            instantiate(OmegaConf.select(cfg, key))
        except (UserError, OmegaConfBaseException) as error:
            reference = re.fullmatch(r"\$\{([^.{}][^{}]*)\}", str(call.get(argument)))
            setting = reference[1] if reference else f"{key}.{argument}"
            what = "FOLDER" if function is num_image_folder_classes else "FILE"
            missing = "Missing mandatory value" in f"{error} {error.__cause__}"
            reason = "is not set" if missing else f"cannot be used ({str(error).rstrip('.')})"
            raise ConfigError(
                f"The model's number of classes is counted in {counted} that it was trained on, "
                f"but {setting} {reason}: add {setting}={what} or, without it, {key}=NUMBER."
            ) from error


def find_metadata(cfg: DictConfig):
    """The metadata of the config's test or training set, reading its json if that is what it takes.

    Of classifiers, `classes` as their evaluator has them. None, with a warning, where neither
    is at hand: classes are then numbers.
    """
    classes = _evaluator_classes(cfg)
    if classes is not None:
        return Metadata(name="evaluator", classes=classes)
    for part in ("test", "train"):
        try:
            metadata = _dataset_metadata(cfg.dataloader[part].dataset.names)
            if metadata is not None:
                return metadata
        # Whatever keeps a data set from being read must not keep a demo from running.
        except Exception as error:
            logger.debug("No class names from the %s set: %s", part, error)
    logger.warning("No class names: the config's data sets cannot be read. Classes are numbers.")
    return None


def dataset_ids(metadata) -> dict[int, int]:
    """The data set's category id of each class number; {} where metadata does not say."""
    mapping = metadata.get("thing_dataset_id_to_contiguous_id") if metadata is not None else None
    return {contiguous: dataset_id for dataset_id, contiguous in (mapping or {}).items()}


def _counting_calls(node: Any, path: list[str]) -> Iterator[tuple[list[str], dict, Any]]:
    """Find the calls in a config that count classes: the path, the call and its function."""
    function = _counting(node.get("_target_")) if isinstance(node, dict) else None
    if function is not None:
        yield path, node, function
    elif isinstance(node, (dict, list)):
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _counting_calls(child, [*path, str(key)])


def _counting(target: Any) -> Any:
    """The function that a call's target is; None for one that counts no classes."""
    if isinstance(target, str) and target.endswith(tuple(f.__name__ for f in _COUNTING)):
        target = locate(target)  # out of yaml
    return next((function for function in _COUNTING if target is function), None)


def _evaluator_classes(cfg: DictConfig) -> list[str] | None:
    """The names of the classes that a classifier's evaluator is given; None where there are none.

    Reading them must neither keep a demo from running nor a training.
    """
    try:
        names = OmegaConf.select(cfg, "dataloader.evaluator.class_names")
        names = instantiate(names) if isinstance(names, DictConfig) else names
        return None if names is None else [str(name) for name in names]
    except Exception as error:
        logger.debug("No class names from the evaluator: %s", error)
        return None


def _dataset_metadata(names: Any):
    """The metadata of a data set, or of the first of several; None if it names no classes."""
    name = instantiate(names)
    name = name if isinstance(name, str) else name[0]
    metadata = MetadataCatalog.get(name)
    if not _names_classes(metadata) and metadata.get("json_file"):
        # Reading the whole data set would also look for its images, which nobody needs here.
        categories = read_single_list(metadata.json_file, "categories")
        if categories is None:
            categories = read_coco_json(metadata.json_file)["categories"]
        categories = sorted(categories, key=lambda category: category["id"])
        return Metadata(
            name=name,
            thing_classes=[str(category["name"]) for category in categories],
            thing_dataset_id_to_contiguous_id={c["id"]: i for i, c in enumerate(categories)},
        )
    if not _names_classes(metadata):
        DatasetCatalog.get(name)  # many sets fill in their metadata when they are loaded
    return metadata if _names_classes(metadata) else None


def _names_classes(metadata) -> bool:
    return any(metadata.get(kind) for kind in (_THINGS, _STUFF))
