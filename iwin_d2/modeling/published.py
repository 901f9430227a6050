"""The published image and video classifiers by their names, with random weights.

`iwin_d2.checkpoint.load_pretrained(model, name)` gives them the published ones.
"""

import difflib
from typing import Any

from ..errors import ConfigError
from .classifier import IwinClassifier
from .iwin3d import IwinTransformer3D, VideoClassifier
from .stages import SIZES

__all__ = [
    "IMAGE_CLASSIFIERS",
    "VIDEO_CLASSIFIERS",
    "iwin_classifier",
    "iwin_video_classifier",
]

# Of every ImageNet-1K classifier of size S that was not pre-trained on ImageNet-22K.
_HEADS_OF_S_1K = (3, 4, 8, 16)
_WINDOWS = {224: 7, 384: 12, 512: 16, 1024: 16}
_SIDES_1K = {"tiny": (224,), "small": tuple(_WINDOWS), "base": tuple(_WINDOWS)}
_SIDES_22K = {"base": tuple(_WINDOWS), "large": (224, 384)}


def _image_classifiers() -> dict[str, dict[str, Any]]:
    found = {}

    def add(size: str, side: int, suffix: str, num_classes: int, **others: Any) -> None:
        window = _WINDOWS[side]
        settings = {"img_size": side, "window_size": window, "num_classes": num_classes}
        name = f"iwin_{size}_patch4_window{window}_{side}{suffix}"
        found[name] = {**SIZES[size], **settings, **others}

    for size, sides in _SIDES_1K.items():
        heads = {"num_heads": _HEADS_OF_S_1K} if size == "small" else {}
        for side in sides:
            add(size, side, "", 1000, **heads)
    for size, sides in _SIDES_22K.items():
        for side in sides:
            add(size, side, "_22k", 21841)
            add(size, side, "_22kto1k", 1000)
    return found


# Keyword arguments of IwinClassifier.
IMAGE_CLASSIFIERS = _image_classifiers()
# Keyword arguments of IwinTransformer3D, and the number of classes.
VIDEO_CLASSIFIERS = {
    f"iwin_{size}_patch244_window77_kinetics400_1k": (SIZES[size], 400)
    for size in ("tiny", "small")
}


def iwin_classifier(name: str, **kwargs) -> IwinClassifier:
    """Build a published image classifier, with random weights.

    The published files of ImageNet-22K could not be looked at: their number of classes is taken to
    be 21,841, that of the synsets; loading one that has another says so.

    Args:
        name: as the published file is called: "iwin_tiny_patch4_window7_224".
        **kwargs: of IwinClassifier, where they are to differ.

    Raises:
        ConfigError: there is no such name.
    """
    return IwinClassifier(**{**_find(name, IMAGE_CLASSIFIERS), **kwargs})


def iwin_video_classifier(
    name: str, *, num_classes: int | None = None, dropout: float = 0.5, **kwargs
) -> VideoClassifier:
    """Build a published video classifier, with random weights.

    Args:
        name: as the published file is called: "iwin_tiny_patch244_window77_kinetics400_1k".
        num_classes: if not the published.
        dropout: as VideoClassifier's.
        **kwargs: of IwinTransformer3D, where they are to differ.

    Raises:
        ConfigError: there is no such name.
    """
    settings, published_classes = _find(name, VIDEO_CLASSIFIERS)
    backbone = IwinTransformer3D(**{**settings, **kwargs})
    classes = published_classes if num_classes is None else num_classes
    return VideoClassifier(backbone, classes, dropout=dropout)


def _find(name: str, table: dict[str, Any]) -> Any:
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1, cutoff=0.0)[0]
        raise ConfigError(f"There is no published classifier {name!r}. Did you mean {near}?")
    return table[name]
