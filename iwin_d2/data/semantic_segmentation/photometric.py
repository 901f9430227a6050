"""Random brightness, contrast, saturation and hue."""

import numpy as np
from PIL import Image

from ...d2.data.transforms import Augmentation, NoOpTransform, Transform

__all__ = ["PhotometricDistortion", "PhotometricTransform"]

_HUES = 180  # what a full turn is in the published settings, as in OpenCV
_LEVELS = np.arange(256, dtype=np.float64)


class PhotometricDistortion(Augmentation):
    """Change brightness, contrast, saturation and hue, each with a probability of one half.

    Brightness first; then contrast, or else contrast at the very end, with equal chances;
    saturation and hue in between. Images are uint8 [H, W, 3], RGB or BGR: the other order turns the
    hue the other way, which is drawn just as often.

    Args:
        brightness: the most that is added to or taken from the 0..255 of a channel.
        contrast: (least, greatest) factor of the channels.
        saturation: (least, greatest) factor of the saturation.
        hue: the most that the hue is turned, either way; 180 is a full turn.

    Source: the published segmentation configs (MMSegmentation's PhotoMetricDistortion).
    """

    def __init__(
        self,
        brightness: float = 32,
        contrast: tuple[float, float] = (0.5, 1.5),
        saturation: tuple[float, float] = (0.5, 1.5),
        hue: float = 18,
    ):
        super().__init__()
        contrast, saturation = tuple(contrast), tuple(saturation)
        for name, (least, greatest) in (("contrast", contrast), ("saturation", saturation)):
            if not 0 <= least <= greatest:
                raise ValueError(f"{name}={(least, greatest)} must be two factors, least first")
        if brightness < 0 or not 0 <= hue <= _HUES:
            raise ValueError(
                f"brightness={brightness} must be at least 0, hue={hue} from 0 to {_HUES}"
            )
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw the changes."""
        # Every number is drawn for every image: which are used does not move the later ones.
        apply = np.random.randint(2, size=5).tolist()
        added = np.random.uniform(-self.brightness, self.brightness)
        contrast = np.random.uniform(*self.contrast)
        saturation = np.random.uniform(*self.saturation)
        turned = np.random.uniform(-self.hue, self.hue)
        if not any(apply[:4]):
            return NoOpTransform()
        return PhotometricTransform(
            brightness=added if apply[0] else 0.0,
            contrast=contrast if apply[1] else 1.0,
            saturation=saturation if apply[2] else 1.0,
            hue=turned if apply[3] else 0.0,
            contrast_first=bool(apply[4]),
        )


class PhotometricTransform(Transform):
    """One choice of the changes that `PhotometricDistortion` draws."""

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 1.0,
        saturation: float = 1.0,
        hue: float = 0.0,
        contrast_first: bool = True,
    ):
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Change an image, uint8 [H, W, 3]; the result is a new array.

        Raises:
            ValueError: for another type or number of channels.
        """
        if img.dtype != np.uint8 or img.ndim != 3 or img.shape[2] != 3:
            raise ValueError(
                f"PhotometricDistortion takes images of uint8 and 3 channels, got {img.dtype} "
                f"{tuple(img.shape)}"
            )
        before = _clipped(_LEVELS + self.brightness)
        if self.contrast_first:
            before = _clipped(before * self.contrast)
        picture = Image.fromarray(np.ascontiguousarray(img)).point(_table(before) * 3)
        if self.saturation != 1.0 or self.hue != 0.0:
            picture = self._recoloured(picture)
        if not self.contrast_first and self.contrast != 1.0:
            picture = picture.point(_table(_clipped(_LEVELS * self.contrast)) * 3)
        return np.array(picture)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Points [N, 2] stay where they are."""
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Labels stay as they are."""
        return segmentation

    def _recoloured(self, picture: Image.Image) -> Image.Image:
        """Change saturation and hue, which Pillow has in 256 steps each."""
        turned = (_LEVELS + self.hue * 256 / _HUES) % 256
        tables = [turned.round() % 256, _clipped(_LEVELS * self.saturation), _LEVELS]
        lookup = [level for table in tables for level in _table(table)]
        return picture.convert("HSV").point(lookup).convert("RGB")


def _clipped(levels: np.ndarray) -> np.ndarray:
    return levels.clip(0, 255)


def _table(levels: np.ndarray) -> list[int]:
    return levels.round().astype(int).tolist()
