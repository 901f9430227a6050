"""Clips of shapes that move in one of several ways, as frames."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["MOTIONS", "MovingScene", "compose_moving_scene", "draw_moving_scene"]

# By the name of the class: right, down (as shares of the picture) and turn, in units of its speed.
MOTIONS = {
    "still": (0, 0, 0),
    "horizontal": (1, 0, 0),
    "vertical": (0, 1, 0),
    "turning": (0, 0, 1),
}
# Corners around (0, 0), of a radius of about 1; none looks the same after a quarter turn.
_SHAPES = (
    ((-1, -0.3), (1, -0.3), (1, 0.3), (-1, 0.3)),
    ((1, 0), (-0.7, 0.75), (-0.7, -0.75)),
    ((-0.8, -0.8), (-0.2, -0.8), (-0.2, 0.3), (0.8, 0.3), (0.8, 0.8), (-0.8, 0.8)),
    ((0, -1), (0.45, 0), (0, 1), (-0.45, 0)),
)
_FINE = 2  # drawn so many times larger, for smooth edges


@dataclass(frozen=True)
class _Shape:
    corners: tuple[tuple[float, float], ...]
    x: float
    y: float
    angle: float
    radius: float
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class MovingScene:
    """What a clip shows, but for the way in which its shapes move.

    Attributes:
        background: uint8 [5, 5, 3], colours to fade between.
        shapes: places and sizes are shares of the picture's side, angles are in radians.
        shift: how far shapes go from one frame to the next, if they do, a share of the side.
        turn: how far they turn from one frame to the next, if they do, in radians.
        sense: 1, or -1 where they go left or up, or turn counterclockwise.
    """

    background: np.ndarray
    shapes: tuple[_Shape, ...]
    shift: float
    turn: float
    sense: int


def compose_moving_scene(rng: np.random.Generator) -> MovingScene:
    """Draw a scene. Places and angles are equally distributed over all that there are."""
    shapes = []
    for _ in range(rng.integers(8, 13)):
        light = rng.random() < 0.5
        colour = rng.integers(190, 256, 3) if light else rng.integers(0, 40, 3)
        colour[rng.integers(3)] = rng.integers(0, 256)
        shapes.append(
            _Shape(
                corners=_SHAPES[rng.integers(len(_SHAPES))],
                x=rng.random(),
                y=rng.random(),
                angle=rng.uniform(0, 2 * math.pi),
                radius=rng.uniform(0.1, 0.16),
                colour=tuple(colour.tolist()),
            )
        )
    return MovingScene(
        background=rng.integers(70, 150, (5, 5, 3)).astype(np.uint8),
        shapes=tuple(shapes),
        shift=rng.uniform(0.015, 0.035),
        turn=rng.uniform(0.08, 0.16),
        sense=int(rng.choice([-1, 1])),
    )


def draw_moving_scene(scene: MovingScene, motion: str, number: int, size: int) -> np.ndarray:
    """Draw a frame.

    Args:
        scene: what there is to see.
        motion: one of MOTIONS.
        number: of the frame, from 0.
        size: side of the picture in pixels.

    Returns:
        uint8 [size, size, 3], RGB.
    """
    right, down, turn = (scene.sense * part for part in MOTIONS[motion])
    fine = size * _FINE
    picture = Image.fromarray(scene.background).resize((fine, fine), Image.BILINEAR)
    canvas = ImageDraw.Draw(picture)
    for shape in scene.shapes:
        # What leaves on one side comes in on the other.
        x = (shape.x + right * scene.shift * number) % 1
        y = (shape.y + down * scene.shift * number) % 1
        angle = shape.angle + turn * scene.turn * number
        cos, sin = shape.radius * math.cos(angle), shape.radius * math.sin(angle)
        for i in (-1, 0, 1):
            for j in (-1, 0, 1):
                corners = [
                    ((x + i + a * cos - b * sin) * fine, (y + j + a * sin + b * cos) * fine)
                    for a, b in shape.corners
                ]
                canvas.polygon(corners, fill=shape.colour)
    return np.asarray(picture.reduce(_FINE))
