"""ADE20K, Cityscapes and Pascal Context, where DETECTRON2_DATASETS says.

The names are not Detectron2's, whose data sets of these read other files: ADE20K's labels
converted, Cityscapes' train ids.
"""

import os

from ...errors import ConfigError
from ..registered import datasets_root, variable_hint
from .class_lists import ADE20K, CITYSCAPES, CITYSCAPES_IDS, PASCAL_CONTEXT
from .folder import register_folder
from .label_format import IGNORE_VALUE

__all__ = ["register_ade20k", "register_cityscapes", "register_pascal_context"]

_CITYSCAPES_MOST = 33  # the greatest id
# Whatever other tools call the splits.
_SPLITS = {"training": "train", "train": "train", "validation": "val", "val": "val"}


def register_ade20k(split: str) -> str:
    """Register ADE20K's scene parsing benchmark (150 classes); return "ade20k_train" or "_val".

    Files lie in ADEChallengeData2016/{images,annotations}/{training,validation}, as they are
    published: 0 means "other" and is ignored.

    Args:
        split: "training" or "validation"; "train" and "val" for short.

    Raises:
        ConfigError: there is no such split.
    """
    split = _settle(split, "ADE20K")
    folder = {"train": "training", "val": "validation"}[split]
    return register_folder(
        f"ade20k_{split}",
        _path("ADEChallengeData2016", "images", folder),
        _path("ADEChallengeData2016", "annotations", folder),
        ADE20K,
        reduce_zero_label=True,
        hint=variable_hint("ADEChallengeData2016", with_state=True),
    )


def register_cityscapes(split: str) -> str:
    """Register Cityscapes with fine labels (19 classes); return "cityscapes_train" or "_val".

    Files lie in cityscapes/leftImg8bit/{train,val} and cityscapes/gtFine/{train,val}, as they are
    published: the *_labelIds.png are read, whose ids beyond the 19 classes are ignored.

    The arguments are those of `register_ade20k`.
    """
    split = _settle(split, "Cityscapes")
    numbers = dict(zip(CITYSCAPES_IDS, range(len(CITYSCAPES))))
    values = {value: numbers.get(value, IGNORE_VALUE) for value in range(_CITYSCAPES_MOST + 1)}
    return register_folder(
        f"cityscapes_{split}",
        _path("cityscapes", "leftImg8bit", split),
        _path("cityscapes", "gtFine", split),
        CITYSCAPES,
        label_values=values,
        image_suffix="_leftImg8bit.png",
        label_suffix="_gtFine_labelIds.png",
        hint=variable_hint("cityscapes", with_state=True),
    )


def register_pascal_context(split: str, num_classes: int = 60) -> str:
    """Register Pascal Context; return "pascal_context_60_train", say.

    Files lie in VOC2010: JPEGImages, SegmentationClassContext (as MMSegmentation's converter writes
    it: 0 is the background, 1 to 59 are the classes) and ImageSets/SegmentationContext/{train,val}
    .txt.

    Args:
        split: as for `register_ade20k`.
        num_classes: 60 with the background, 59 without it: then it is ignored.

    Raises:
        ConfigError: there is no such split, or another number of classes.
    """
    split = _settle(split, "Pascal Context")
    if num_classes not in (59, 60):
        raise ConfigError(
            f"Pascal Context is used with 60 classes or, without background, 59, not {num_classes}."
        )
    names = PASCAL_CONTEXT if num_classes == 59 else ("background", *PASCAL_CONTEXT)
    return register_folder(
        f"pascal_context_{num_classes}_{split}",
        _path("VOC2010", "JPEGImages"),
        _path("VOC2010", "SegmentationClassContext"),
        names,
        reduce_zero_label=num_classes == 59,
        accept_palette=True,
        image_suffix=".jpg",
        label_suffix=".png",
        list_file=_path("VOC2010", "ImageSets", "SegmentationContext", f"{split}.txt"),
        hint=variable_hint("VOC2010", with_state=True),
    )


def _settle(split: str, title: str) -> str:
    if split not in _SPLITS:
        raise ConfigError(f"{title} has no split {split!r}: choose training or validation.")
    return _SPLITS[split]


def _path(*parts: str) -> str:
    return os.path.join(datasets_root(), *parts)
