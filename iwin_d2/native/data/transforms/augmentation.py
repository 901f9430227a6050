"""What an augmentation is, and what it works on."""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from fvcore.transforms.transform import Transform, TransformList

__all__ = ["AugInput", "Augmentation", "AugmentationList", "to_augmentation"]


class AugInput:
    """What augmentations look at and change: an image and what belongs to it.

    Args:
        image: array [H, W] or [H, W, C]; uint8 in 0..255 or floating point.
        boxes: array [N, 4] of x0, y0, x1, y1 in pixels, or None.
        sem_seg: array [H, W] of integers, or None.

    More attributes may be set; an augmentation whose `get_transform` has an argument of that name
    gets them, but only the three above are transformed.
    """

    def __init__(
        self,
        image: np.ndarray,
        *,
        boxes: np.ndarray | None = None,
        sem_seg: np.ndarray | None = None,
    ):
        if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
            raise AssertionError("an image is a NumPy array [H, W] or [H, W, C]")
        if image.dtype != np.uint8 and image.dtype.kind != "f":
            raise AssertionError(f"an image is of uint8 or floats, got {image.dtype}")
        self.image = image
        self.boxes = boxes
        self.sem_seg = sem_seg

    def transform(self, tfm: Transform) -> None:
        """Apply a transform to image, boxes and segmentation, in place."""
        self.image = tfm.apply_image(self.image)
        if self.boxes is not None:
            self.boxes = tfm.apply_box(self.boxes)
        if self.sem_seg is not None:
            self.sem_seg = tfm.apply_segmentation(self.sem_seg)

    def apply_augmentations(
        self, augmentations: Sequence["Augmentation | Transform"]
    ) -> TransformList:
        """Apply augmentations in order, in place; return what they did."""
        return AugmentationList(augmentations)(self)


class Augmentation:
    """A policy that chooses a transform, at random or by the input.

    Subclasses define `get_transform(self, image, ...)`. Its arguments are the attributes of those
    names of the AugInput; `input_args` overrides which ones.
    """

    input_args: tuple[str, ...] | None = None

    def get_transform(self, *args: Any) -> Transform:
        """Choose the transform, without applying it."""
        raise NotImplementedError

    def __call__(self, aug_input: AugInput) -> Transform:
        """Choose a transform, apply it to `aug_input` in place, and return it."""
        names = self._argument_names()
        missing = [name for name in names if not hasattr(aug_input, name)]
        if missing:
            raise AttributeError(f"{type(self).__name__} needs the input's {missing[0]!r}")
        tfm = self.get_transform(*(getattr(aug_input, name) for name in names))
        aug_input.transform(tfm)
        return tfm

    def _argument_names(self) -> tuple[str, ...]:
        if self.input_args is None:
            parameters = inspect.signature(self.get_transform).parameters.values()
            self.input_args = tuple(p.name for p in parameters if p.default is p.empty)
        return self.input_args

    def _init(self, params: dict[str, Any] | None = None) -> None:
        """Keep a constructor's `locals()` as attributes."""
        for name, value in (params or {}).items():
            if name != "self" and not name.startswith("_"):
                setattr(self, name, value)

    def _rand_range(self, low: float = 1.0, high: float | None = None, size=None):
        """Draw uniformly from [low, high), or from [0, low) if `high` is None."""
        if high is None:
            low, high = 0, low
        return np.random.uniform(low, high, size)

    def __repr__(self) -> str:
        names = [n for n in inspect.signature(type(self).__init__).parameters if n != "self"]
        shown = [f"{name}={getattr(self, name)!r}" for name in names if hasattr(self, name)]
        return f"{type(self).__name__}({', '.join(shown)})"


class _Fixed(Augmentation):
    """An augmentation that always gives one transform."""

    input_args = ()

    def __init__(self, tfm: Transform):
        self.tfm = tfm

    def get_transform(self, *args: Any) -> Transform:
        return self.tfm

    def __repr__(self) -> str:
        return repr(self.tfm)


def to_augmentation(tfm_or_aug: Transform | Augmentation) -> Augmentation:
    """Return an augmentation as it is, and a transform as the augmentation that always gives it."""
    if isinstance(tfm_or_aug, Augmentation):
        return tfm_or_aug
    if isinstance(tfm_or_aug, Transform):
        return _Fixed(tfm_or_aug)
    raise AssertionError(f"expected an Augmentation or a Transform, got {tfm_or_aug!r}")


class AugmentationList(Augmentation):
    """Augmentations one after the other; each sees what those before it have left.

    Args:
        augs: augmentations and transforms.
    """

    def __init__(self, augs: Sequence[Augmentation | Transform]):
        self.augs = [to_augmentation(aug) for aug in augs]

    def __call__(self, aug_input: AugInput) -> TransformList:
        return TransformList([aug(aug_input) for aug in self.augs])

    def __repr__(self) -> str:
        return f"AugmentationList[{', '.join(map(repr, self.augs))}]"
