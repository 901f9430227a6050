"""Resizing only the part of an image that its crop keeps: the dearest step of the published recipe.

At the ratio 2 the crop keeps a fifth of the resized image.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ...d2.data.transforms import Augmentation, CropTransform, Transform, TransformList
from .augmentations import LabelResizeTransform, RandomCropByLabels, ResizeByRatio

__all__ = ["ResizedCrop", "fuse"]


def fuse(augmentations: Sequence[Augmentation | Transform]) -> list[Augmentation | Transform]:
    """Put each `ResizeByRatio` and the `RandomCropByLabels` behind it together."""
    fused: list[Augmentation | Transform] = []
    for item in augmentations:
        # Exactly these: a subclass may do something else.
        if type(item) is RandomCropByLabels and fused and type(fused[-1]) is ResizeByRatio:
            item = ResizedCrop(fused.pop(), item)
        fused.append(item)
    return fused


class ResizedCrop(Augmentation):
    """What a resize and a crop do one after the other, without resizing what the crop cuts off.

    Draws the same random numbers and gives the same labels; pixels of the image may be rounded to
    the neighbouring level.
    """

    def __init__(self, resize: ResizeByRatio, crop: RandomCropByLabels):
        super().__init__()
        self._init(locals())

    def __call__(self, aug_input) -> TransformList:
        """Change an AugInput in place; return both transforms."""
        resize = self.resize.get_transform(aug_input.image)
        labels = aug_input.sem_seg
        labels = None if labels is None else resize.apply_segmentation(labels)
        # Of the resized image the crop looks at the shape alone.
        shape = np.broadcast_to(np.uint8(0), (resize.new_h, resize.new_w))
        crop = self.crop.get_transform(shape, labels)
        if aug_input.sem_seg is not None:
            aug_input.sem_seg = crop.apply_segmentation(labels)
        if getattr(aug_input, "boxes", None) is not None:
            aug_input.boxes = crop.apply_box(resize.apply_box(aug_input.boxes))
        aug_input.image = _resize_part(aug_input.image, resize, crop)
        return TransformList([resize, crop])


def _resize_part(image: np.ndarray, resize: LabelResizeTransform, crop: Transform) -> np.ndarray:
    """The crop of the resized image."""
    in_bytes = image.dtype == np.uint8 and (image.ndim == 2 or image.shape[2] == 3)
    if not in_bytes or not isinstance(crop, CropTransform):
        return crop.apply_image(resize.apply_image(image))
    across, down = resize.w / resize.new_w, resize.h / resize.new_h
    box = (
        crop.x0 * across,
        crop.y0 * down,
        min((crop.x0 + crop.w) * across, resize.w),
        min((crop.y0 + crop.h) * down, resize.h),
    )
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((crop.w, crop.h), resize.interp, box))
