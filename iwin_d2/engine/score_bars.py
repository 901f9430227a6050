"""Scores of classes as bars below a picture."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..lettering import FAINT, INK, PAPER, cut_text, load_font
from .classifier_predictor import ClassScore
from .drawing import class_color

__all__ = ["draw_scores", "enlarge"]

_PAD, _LINE, _BAR, _LETTERS = 12, 24, 12, 14  # pixels below a picture of up to _WIDTH pixels
_WIDTH = 900
_NAMES = 0.4  # of the width, at most
_EMPTY = (235, 235, 240)


def draw_scores(
    scores: Sequence[ClassScore], width: int, caption: str = "", lines: int | None = None
) -> np.ndarray:
    """Draw a line for each class: its name, a bar and its score in percent.

    Args:
        scores: from top to bottom; a class has the same colour everywhere.
        width: of the picture in pixels.
        caption: a line above them, in faint letters.
        lines: to make room for; as many as there are scores if None.

    Returns:
        RGB, uint8 [h, width, 3]; h depends on width, `lines` and whether there is a caption.
    """
    unit = max(width / _WIDTH, 1.0)
    font, pad, line = load_font(round(_LETTERS * unit)), round(_PAD * unit), round(_LINE * unit)
    top = pad + (line if caption else 0)
    lines = len(scores) if lines is None else lines
    strip = Image.new("RGB", (width, top + lines * line + pad), PAPER)
    draw = ImageDraw.Draw(strip)
    if caption:
        text = cut_text(caption, font, width - 2 * pad)
        draw.text((pad, pad + line / 2), text, font=font, fill=FAINT, anchor="lm")
    longest = max((math.ceil(font.getlength(found.name)) for found in scores), default=0)
    value = math.ceil(font.getlength("100.0 %"))
    room = min(longest, round(_NAMES * width))
    left, right = pad + round(_NAMES * width) + pad, width - value - 2 * pad
    half = round(_BAR * unit / 2)
    for place, found in enumerate(scores[:lines]):
        middle = top + place * line + line // 2
        name = cut_text(found.name, font, room)
        draw.text((pad, middle), name, font=font, fill=INK, anchor="lm")
        percent = f"{100 * found.score:.1f} %"
        draw.text((width - pad, middle), percent, font=font, fill=INK, anchor="rm")
        if right > left:
            color = tuple(round(255 * part) for part in class_color(found.number))
            end = left + round((right - left) * min(max(found.score, 0.0), 1.0))
            draw.rectangle((left, middle - half, right, middle + half), fill=_EMPTY)
            if end > left:
                draw.rectangle((left, middle - half, end, middle + half), fill=color)
    return np.asarray(strip)


def enlarge(pixels: np.ndarray, scale: float) -> np.ndarray:
    """An image, RGB uint8 [H, W, 3], with its sides multiplied by a number."""
    if scale == 1:
        return pixels
    size = [round(scale * side) for side in pixels.shape[1::-1]]
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
