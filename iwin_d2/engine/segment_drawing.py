"""Label maps drawn on images: translucent colours with contours, and how much a class takes."""

import functools

import numpy as np
from PIL import Image

from .drawing import Color

__all__ = [
    "HATCHED",
    "OPACITY",
    "WRONG",
    "draw_errors",
    "draw_segments",
    "segment_color",
    "share_text",
]

HATCHED: Color = (0.55, 0.55, 0.58)  # what legends show for pixels without a class
WRONG: Color = (0.95, 0.1, 0.2)  # of pixels in `draw_errors`
OPACITY = 0.55  # of colours on an image

_COLORS = 512  # from here on, they come again
_STEPS = 16  # a side of the cube of colours that they are chosen from
_LIGHTNESS = (45.0, 88.0)  # CIE L* of what shows on photographs, dark and bright ones
_CHROMA = (40.0, 100.0)  # grey would look like the image itself, and nothing is to glare
_STRIPE = 4  # pixels


def segment_color(index: int) -> Color:
    """The colour of a class in label maps, RGB in [0, 1]; the same whatever the other classes are.

    As far as possible from the colours of all smaller numbers, in steps that eyes see as equal.
    """
    return tuple(float(value) / 255 for value in _palette()[index % _COLORS])


def draw_segments(
    image: np.ndarray,
    labels: np.ndarray,
    *,
    scale: float = 1.0,
    opacity: float = OPACITY,
) -> np.ndarray:
    """Draw a label map on its image: classes in translucent colours, with contours.

    Under colours, the image turns grey, or those of a blue class on something yellow would be
    green.

    Args:
        image: RGB, uint8 [H, W, 3].
        labels: class numbers, integers [H, W]; pixels of a negative number have no class and are
            hatched.
        scale: enlarges the picture, or reduces it.
        opacity: of the colours, from 0 (contours alone) to 1 (no image).

    Returns:
        RGB, uint8, [scale * H, scale * W, 3], rounded.
    """
    image = _scaled(image, scale)
    size = image.shape[:2]
    labels = _resized(labels, size).astype(np.int32)
    colors = np.where((labels < 0)[..., None], _hatch(size)[..., None], _colors_of(labels))
    weights = np.full(size, round(256 * opacity), dtype=np.uint16)
    weights[_contours(labels, max(round(max(size) / 900), 1))] = 256
    mixed = _greyer(image, opacity) * (256 - weights)[..., None] + colors * weights[..., None]
    return (mixed >> 8).astype(np.uint8)


def draw_errors(
    image: np.ndarray, truth: np.ndarray, predicted: np.ndarray, *, scale: float = 1.0
) -> np.ndarray:
    """Draw where a label map is wrong: on the image in dark grey, in the colour `WRONG`.

    Args:
        image: RGB, uint8 [H, W, 3].
        truth: class numbers, integers [H, W]; pixels of a negative number are hatched.
        predicted: class numbers, integers [H, W].
        scale: enlarges the picture, or reduces it.

    Returns:
        RGB, uint8, [scale * H, scale * W, 3], rounded.
    """
    image = _scaled(image, scale)
    states = _resized(np.where(truth < 0, -1, truth != predicted), image.shape[:2])
    grey = 0.45 * image.mean(2, keepdims=True)
    drawn = np.where((states > 0)[..., None], 255 * np.array(WRONG), grey)
    drawn[states < 0] = 0.5 * (grey + _hatch(image.shape[:2])[..., None])[states < 0]
    return drawn.round().astype(np.uint8)


def share_text(share: float) -> str:
    """A part of an image in percent."""
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def _greyer(image: np.ndarray, opacity: float) -> np.ndarray:
    """An image that loses its colours as others are laid on it: uint8 [H, W, 3]."""
    picture = Image.fromarray(image)
    return np.asarray(Image.blend(picture, picture.convert("L").convert("RGB"), opacity**0.5))


def _scaled(image: np.ndarray, scale: float) -> np.ndarray:
    """An image of scale times the size."""
    height, width = (max(round(side * scale), 1) for side in image.shape[:2])
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.BICUBIC))


def _resized(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The labels of the pixels nearest to those of a map of another size."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, labels.shape)
    )
    return labels if labels.shape == size else labels[rows[:, None], columns]


def _colors_of(labels: np.ndarray) -> np.ndarray:
    """uint16 [H, W, 3], which has room for products."""
    return _palette()[np.maximum(labels, 0) % _COLORS].astype(np.uint16)


def _hatch(size: tuple[int, int]) -> np.ndarray:
    """Grey stripes from upper right to lower left, uint16 [H, W]."""
    diagonals = (np.arange(size[0])[:, None] + np.arange(size[1])) // _STRIPE
    return np.where(diagonals % 2, 200, 80).astype(np.uint16)


def _contours(labels: np.ndarray, width: int) -> np.ndarray:
    """Pixels at most `width` from one of another class, across or down: bool [H, W]."""
    found = np.zeros(labels.shape, dtype=bool)
    for step in range(1, width + 1):
        for axis in (0, 1):
            one, other = np.moveaxis(labels, axis, 0)[step:], np.moveaxis(labels, axis, 0)[:-step]
            differs = one != other
            view = np.moveaxis(found, axis, 0)
            view[step:] |= differs
            view[:-step] |= differs
    return found & (labels >= 0)


@functools.cache
def _palette() -> np.ndarray:
    """uint8 [_COLORS, 3]: each colour the farthest from all before it, the first one red."""
    levels = np.linspace(0, 255, _STEPS).round().astype(np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    lab = _to_lab(colors)
    lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    usable = np.ones(len(lab), dtype=bool)
    for values, (least, most) in ((lightness, _LIGHTNESS), (chroma, _CHROMA)):
        usable &= (values >= least) & (values <= most)
    colors, lab = colors[usable], lab[usable]
    chosen = [int(np.argmin(np.abs(colors.astype(int) - (230, 30, 30)).sum(1)))]
    distance = np.full(len(lab), np.inf)
    while len(chosen) < _COLORS:
        distance = np.minimum(distance, ((lab - lab[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(distance.argmax()))
    return colors[chosen]


def _to_lab(colors: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of sRGB colours, uint8 [n, 3]."""
    values = colors / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ to_xyz.T / (0.9505, 1.0, 1.089)
    cubed = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = cubed.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
