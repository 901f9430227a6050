"""Scenes of textured shapes: what lies where, and how it is drawn.

A scene is described first (`compose_scene`) and drawn afterwards (`draw_scene`), so that data sets
of several tasks, with boxes and masks or with label maps, can be written from the same scenes.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .contours import signed_area, trace_boundaries

__all__ = [
    "CLASS_NAMES",
    "MAX_OBJECTS",
    "SIZES",
    "Scene",
    "ShapeObject",
    "Texture",
    "compose_scene",
    "draw_scene",
]

CLASS_NAMES = ("circle", "rectangle", "triangle", "star")

# Diameter of the circle around a shape, as a part of the image's short side.
SIZES = (0.11, 0.5)
MAX_OBJECTS = 6
_MIN_VISIBLE = 0.4  # no object is hidden by more than 60 %
_MIN_REGION = 12  # pixels; a smaller visible splinter is not worth a polygon
_MIN_CONTRAST = 90.0  # between an object's colour and what may lie beside it; RGB distance
_SUPERSAMPLING = 4


@dataclass(frozen=True)
class Texture:
    """Two RGB colours (0..255) and the pattern in which they mix."""

    kind: str  # flat, gradient, stripes or noise
    colours: tuple[tuple[float, ...], tuple[float, ...]]
    angle: float  # radians, of gradient and stripes
    period: float  # pixels, of stripes and noise
    seed: int  # of phase and noise


@dataclass(frozen=True)
class ShapeObject:
    """One shape: its class (an index into CLASS_NAMES), outline float[K, 2] and texture."""

    category: int
    outline: np.ndarray
    texture: Texture


@dataclass(frozen=True)
class Scene:
    """What an image shows; later objects lie on top of earlier ones."""

    width: int
    height: int
    background: Texture
    objects: tuple[ShapeObject, ...]
    seed: int  # of the grain


def compose_scene(
    rng: np.random.Generator,
    width: int,
    height: int,
    max_objects: int = MAX_OBJECTS,
    sizes: tuple[float, float] = SIZES,
) -> Scene:
    """Describe a random scene of 1 to `max_objects` shapes.

    The class of a shape says nothing about its colour, size or place. Every shape stays visible by
    40 % at least, and its visible part has no hole.
    """
    background = _background(rng, width, height)
    objects: list[ShapeObject] = []
    masks: list[np.ndarray] = []
    for _ in range(int(rng.integers(1, max_objects + 1))):
        category = int(rng.integers(len(CLASS_NAMES)))
        for _ in range(20):  # attempts at a free place
            outline = _place(rng, _unit_outline(rng, category), width, height, sizes)
            candidate = [*masks, _coverage(outline, width, height) >= 0.5]
            if _all_visible(candidate, [*(o.outline for o in objects), outline]):
                masks = candidate
                neighbours = [background, *(o.texture for o in objects)]
                texture = _object_texture(rng, neighbours, np.ptp(outline, axis=0).max())
                objects.append(ShapeObject(category, outline, texture))
                break
    return Scene(width, height, background, tuple(objects), int(rng.integers(2**31)))


def draw_scene(scene: Scene) -> tuple[np.ndarray, list[np.ndarray]]:
    """Draw a scene, with anti-aliased edges.

    Returns:
        the image uint8[H, W, 3] (RGB) and, per object, its visible part bool[H, W].
    """
    image = _fill(scene.background, scene.width, scene.height)
    masks = []
    for item in scene.objects:
        coverage = _coverage(item.outline, scene.width, scene.height)
        masks.append(coverage >= 0.5)
        colour = _fill(item.texture, scene.width, scene.height)
        image += coverage[..., None] * (colour - image)
    grain = np.random.default_rng(scene.seed).normal(0.0, 3.0, image.shape)
    return np.clip(np.round(image + grain), 0, 255).astype(np.uint8), _visible_parts(masks)


# ---- shapes -------------------------------------------------------------------------------------


def _unit_outline(rng: np.random.Generator, category: int) -> np.ndarray:
    """A shape of a class in the unit circle around the origin, float[K, 2], not yet rotated."""
    name = CLASS_NAMES[category]
    if name == "circle":
        return _on_circle(48)
    if name == "rectangle":
        half_angle = np.arctan(rng.uniform(0.5, 1.0))  # aspect ratio 1:2 to a square
        angles = np.array([half_angle, np.pi - half_angle, np.pi + half_angle, -half_angle])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if name == "triangle":
        return _on_circle(3) * [1.0, rng.uniform(0.8, 1.0)]
    radius = np.where(np.arange(10) % 2 == 0, 1.0, rng.uniform(0.4, 0.5))  # star
    return _on_circle(10) * radius[:, None]


def _on_circle(count: int) -> np.ndarray:
    angles = 2 * np.pi * np.arange(count) / count
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _place(
    rng: np.random.Generator,
    unit: np.ndarray,
    width: int,
    height: int,
    sizes: tuple[float, float],
) -> np.ndarray:
    """Scale, rotate and move a unit outline into the image, which it may leave a little."""
    least, greatest = sizes
    size = min(width, height) * least * (greatest / least) ** rng.uniform()
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    margin = 0.35 * size
    centre = rng.uniform([margin, margin], [width - margin, height - margin])
    return unit @ np.array([[cos, sin], [-sin, cos]]) * (size / 2) + centre


def _coverage(outline: np.ndarray, width: int, height: int) -> np.ndarray:
    """The part of each pixel that an outline covers, float[H, W] in 0..1."""
    scale = _SUPERSAMPLING
    canvas = Image.new("L", (width * scale, height * scale), 0)
    # Pillow's coordinates name pixel centres, ours pixel corners.
    corners = [tuple(point) for point in (outline * scale - 0.5).tolist()]
    ImageDraw.Draw(canvas).polygon(corners, fill=255)
    return np.asarray(canvas.reduce(scale), dtype=np.float64) / 255


def _visible_parts(masks: list[np.ndarray]) -> list[np.ndarray]:
    """What later masks leave visible of each mask."""
    visible, above = [], np.zeros_like(masks[0]) if masks else None
    for mask in reversed(masks):
        visible.append(mask & ~above)
        above = above | mask
    return visible[::-1]


def _all_visible(masks: list[np.ndarray], outlines: list[np.ndarray]) -> bool:
    """Whether enough of every object can be seen, in regions without holes and splinters."""
    for mask, outline in zip(_visible_parts(masks), outlines):
        if mask.sum() < max(_MIN_VISIBLE * abs(signed_area(outline)), _MIN_REGION):
            return False
        if min(signed_area(walk) for walk in trace_boundaries(mask)) < _MIN_REGION:
            return False  # a hole has a negative area
    return True


# ---- textures -----------------------------------------------------------------------------------


def _background(rng: np.random.Generator, width: int, height: int) -> Texture:
    first = rng.uniform(20, 235, 3)
    first = first.mean() + 0.5 * (first - first.mean())  # muted; the objects may be vivid
    second = np.clip(first + rng.normal(0, 28, 3), 0, 255)
    kind = str(rng.choice(["gradient", "stripes", "noise", "noise"]))
    period = min(width, height) * rng.uniform(0.08, 0.35)
    return _texture(rng, kind, first, second, period)


def _object_texture(rng: np.random.Generator, neighbours: list[Texture], size: float) -> Texture:
    """A texture whose colours stand out against its neighbours', as well as chance allows."""
    others = np.array([colour for texture in neighbours for colour in texture.colours])
    best, best_contrast = None, -1.0
    for _ in range(12):
        first = rng.uniform(0, 255, 3)
        second = np.clip(first + rng.normal(0, 22, 3), 0, 255)
        pair = np.stack([first, second])
        contrast = np.sqrt(((pair[:, None] - others) ** 2).sum(-1)).min()
        if contrast > best_contrast:
            best, best_contrast = pair, contrast
        if contrast > _MIN_CONTRAST:
            break
    kind = str(rng.choice(["flat", "gradient", "stripes", "noise"]))
    return _texture(rng, kind, *best, max(size * rng.uniform(0.15, 0.4), 4.0))


def _texture(
    rng: np.random.Generator, kind: str, first: np.ndarray, second: np.ndarray, period: float
) -> Texture:
    colours = (tuple(first.tolist()), tuple(second.tolist()))
    angle = float(rng.uniform(0, 2 * np.pi))
    return Texture(kind, colours, angle, float(period), int(rng.integers(2**31)))


def _fill(texture: Texture, width: int, height: int) -> np.ndarray:
    """The texture over a whole image, float[H, W, 3]."""
    first, second = np.array(texture.colours)
    return first + _pattern(texture, width, height)[..., None] * (second - first)


def _pattern(texture: Texture, width: int, height: int) -> np.ndarray:
    """How much of the second colour each pixel has, float[H, W] in about 0..1."""
    rng = np.random.default_rng(texture.seed)
    y, x = np.mgrid[:height, :width]
    along = x * np.cos(texture.angle) + y * np.sin(texture.angle)
    if texture.kind == "gradient":
        return (along - along.min()) / max(np.ptp(along), 1e-9)
    if texture.kind == "stripes":
        return 0.5 + 0.5 * np.sin(2 * np.pi * (along / texture.period + rng.uniform()))
    if texture.kind == "noise":
        columns, rows = (int(np.ceil(side / texture.period)) + 2 for side in (width, height))
        coarse = Image.fromarray(rng.uniform(0, 1, (rows, columns)).astype(np.float32))
        return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=float)
    return np.full((height, width), 0.5)
