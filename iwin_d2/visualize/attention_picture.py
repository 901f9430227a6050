"""An interleaved window, and where one of its tokens attends, drawn on the image."""

import numpy as np
from PIL import Image, ImageDraw

from ..engine.panels import INK, PAPER, Panel, compose, load_font
from ..errors import ConfigError
from .attention import WindowAttention

__all__ = ["attention_picture", "describe_attention"]

ALL, MEAN = "all", "mean"
_BORDER, _PADDING = (0.78, 0.78, 0.8), (0.5, 0.5, 0.54)  # what is not of the image
_TOKEN, _WINDOW = (1.0, 0.15, 0.15), (0.1, 0.85, 1.0)
_LEAST_CELL = 9  # pixels: smaller tokens are drawn larger than they are
# Dark blue over green to yellow, equal steps of brightness (as viridis).
_HEAT = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)])


def attention_picture(
    attention: WindowAttention, image: np.ndarray, head: int | str = MEAN, tile_size: int = 900
) -> Image.Image:
    """Draw the tokens of a window, and beside it where one of them attends.

    Args:
        attention: of a token.
        image: what the model was given, RGB, uint8 [h, w, 3].
        head: its number from 0; "mean" of all heads; "all" for a small picture of each.
        tile_size: pixels of the longer side of a drawing.

    Raises:
        ConfigError: there is no such head.
    """
    heads = _check_head(attention, head)
    canvas = _Canvas(attention, image, tile_size if head != ALL else round(0.6 * tile_size))
    top = max(float(attention.of_head(number).max()) for number in heads)
    rows, columns = attention.groups
    panels = [
        Panel(
            f"the window: {_every(rows)} row, {_every(columns)} column of tokens",
            canvas.window(),
        )
    ]
    for number in heads:
        shares = _shares(attention, number)
        panels.append(Panel(f"{_head_name(number)}: {shares}", canvas.heat(number, top)))
    legend = [("the token that attends", _TOKEN), ("tokens of its window", _WINDOW)]
    if attention.input_size != attention.image_size:
        legend.append(("padding of the image", _BORDER))
    if attention.padded_size != attention.map_size:
        legend.append(("padding of the map, to whole windows", _PADDING))
    return compose(
        panels,
        heading=_heading(attention),
        remarks=_remarks(attention, canvas),
        legend=legend,
        footer=_color_bar(top, attention.padding.size, min(tile_size, 900)),
        columns=None if head != ALL else _columns(len(panels)),
    )


def describe_attention(attention: WindowAttention, head: int | str) -> list[str]:
    """The same in words: a heading, then a line for each head that is drawn."""
    heads = _check_head(attention, head)
    return [
        _heading(attention),
        *(f"{_head_name(number)}: {_shares(attention, number)}" for number in heads),
    ]


class _Canvas:
    """The image with its paddings, and the places of the tokens on it."""

    def __init__(self, attention: WindowAttention, image: np.ndarray, tile_size: int):
        self._attention = attention
        height, width = (side * attention.stride for side in attention.padded_size)
        self._scale = tile_size / max(height, width)
        self._cell = max(attention.stride * self._scale, _LEAST_CELL)
        size = max(round(width * self._scale), 1), max(round(height * self._scale), 1)
        self._base = Image.new("RGB", size, _to_255(_PADDING))
        self._fill(attention.input_size, _BORDER)
        small = [max(round(side * self._scale), 1) for side in reversed(image.shape[:2])]
        self._base.paste(Image.fromarray(image).resize(small, Image.BICUBIC), (0, 0))

    @property
    def note(self) -> str:
        """What to say of the size that tokens are drawn in."""
        if self._cell > self._attention.stride * self._scale:
            return ", drawn larger than they are."
        return ", weights drawn smaller." if self._crowded else "."

    @property
    def _crowded(self) -> bool:
        """Whether tokens of a window lie side by side, and would cover the image."""
        return 1 in self._attention.groups

    def window(self) -> Image.Image:
        """The tokens of the window, and the one that attends."""
        picture = self._base.copy()
        draw = ImageDraw.Draw(picture, "RGBA")
        for box in self._boxes():
            draw.rectangle(box, fill=(*_to_255(_WINDOW), 110), outline=_to_255(_WINDOW), width=2)
        self._mark_token(draw)
        return picture

    def heat(self, head: int | None, top: float) -> Image.Image:
        """The weights of a head (None: their mean), `top` being the brightest colour.

        Colours go by the square root: padding often takes so much that the rest would be dark.
        """
        dark = self._base.convert("L").point(lambda value: 30 + 0.5 * value).convert("RGB")
        draw = ImageDraw.Draw(dark, "RGBA")
        weights = self._attention.of_head(head).reshape(-1)
        boxes = self._boxes(0.5 if self._crowded else 1.0)
        for index in np.argsort(weights, kind="stable"):
            color = _heat_color((weights[index] / top) ** 0.5)
            draw.rectangle(boxes[index], fill=(*color, 255), outline=(255, 255, 255, 90))
        self._mark_token(draw)
        return dark

    def _fill(self, size: tuple[int, int], color: tuple) -> None:
        height, width = (round(side * self._scale) for side in size)
        self._base.paste(_to_255(color), (0, 0, width, height))

    def _boxes(self, factor: float = 1.0) -> list[tuple[float, ...]]:
        """Where the window's tokens are drawn, row by row: (x0, y0, x1, y1)."""
        a = self._attention
        return [self._box(row, column, factor) for row in a.rows for column in a.columns]

    def _box(self, row: int, column: int, factor: float = 1.0) -> tuple[float, ...]:
        step, side = self._attention.stride * self._scale, self._cell * factor
        left, up = (n * step + (step - side) / 2 for n in (column, row))
        # Where tokens lie side by side, their outlines do not cover each other.
        return left, up, left + max(side - 1, 1), up + max(side - 1, 1)

    def _mark_token(self, draw: ImageDraw.ImageDraw) -> None:
        x0, y0, x1, y1 = self._box(*self._attention.token)
        draw.rectangle((x0 - 3, y0 - 3, x1 + 3, y1 + 3), outline=_to_255(_TOKEN), width=3)


def _check_head(attention: WindowAttention, head: int | str) -> list[int | None]:
    """The heads to draw; None stands for their mean."""
    count = len(attention.weights)
    if head == ALL:
        return list(range(count))
    if head == MEAN:
        return [None]
    if not isinstance(head, int) or not 0 <= head < count:
        there = f"its heads are 0 to {count - 1}" if count > 1 else "its only head is 0"
        raise ConfigError(
            f"Stage {attention.stage} has no head {head}: {there}; or give mean, or all."
        )
    return [head]


def _heading(a: WindowAttention) -> str:
    x, y = (a.token[axis] * a.stride for axis in (1, 0))
    return (
        f"Stage {a.stage}, block {a.block}: the token of row {a.token[0]}, column {a.token[1]} "
        f"(pixels {x} to {x + a.stride - 1}, {y} to {y + a.stride - 1}) in a map of "
        f"{a.map_size[0]} x {a.map_size[1]} tokens"
    )


def _remarks(a: WindowAttention, canvas: _Canvas) -> list[str]:
    sides = " x ".join(str(side) for side in a.weights.shape[1:])
    remarks = [
        f"Window ({a.window[0]}, {a.window[1]}) of {a.groups[0]} x {a.groups[1]} holds {sides} "
        f"tokens, {int(a.border.sum())} of them on the padding of the image and "
        f"{int(a.padding.sum())} on that of the map. The depthwise convolution beside the "
        "attention, which connects neighbours, is not shown.",
        f"The model was given {a.image_size[1]} x {a.image_size[0]} pixels, padded to "
        f"{a.input_size[1]} x {a.input_size[0]}; tokens are {a.stride} x {a.stride} of them"
        + canvas.note,
    ]
    return remarks


def _shares(a: WindowAttention, head: int | None) -> str:
    parts = [f"{100 * a.share(~(a.padding | a.border), head):.1f} % image"]
    for tokens, name in ((a.border, "image padding"), (a.padding, "map padding")):
        if tokens.any():
            parts.append(f"{100 * a.share(tokens, head):.1f} % {name}")
    return f"{', '.join(parts)}; largest weight {a.of_head(head).max():.3f}"


def _head_name(head: int | None) -> str:
    return "mean of the heads" if head is None else f"head {head}"


def _color_bar(top: float, tokens: int, width: int) -> Image.Image:
    """The colours of the weights from 0 to `top`, by their square root, and that of equal ones."""
    font, bar_height = load_font(14), 16
    bar = Image.new("RGB", (width, bar_height + 26), PAPER)
    draw = ImageDraw.Draw(bar)
    for x in range(width):
        draw.line((x, 0, x, bar_height), fill=_heat_color(x / max(width - 1, 1)))
    equal = 1 / tokens
    marks = [(0.0, "weight 0"), (top, f"{top:.3f}")]
    if 0.05 * top < equal < 0.6 * top:
        marks.insert(1, (equal, f"{equal:.3f}, if all {tokens} were equal"))
    for value, text in marks:
        x = (value / top) ** 0.5 * (width - 1)
        length = font.getlength(text)
        draw.line((x, 0, x, bar_height + 5), fill=INK)
        left = min(max(x - length / 2, 0), width - length)
        draw.text((left, bar_height + 7), text, font=font, fill=INK)
    return bar


def _heat_color(value: float) -> tuple[int, int, int]:
    """The colour of a weight from 0 to 1."""
    places = np.linspace(0, 1, len(_HEAT))
    return tuple(round(np.interp(value, places, channel)) for channel in _HEAT.T)


def _columns(panels: int) -> int:
    """Panels in a row, so that there are not many more rows than columns."""
    return max(2, min(4, round(panels**0.5)))


def _every(number: int) -> str:
    """Every, every 2nd, every 12th."""
    if number == 1:
        return "every"
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"every {number}{'th' if number % 100 in (11, 12, 13) else ending}"


def _to_255(color: tuple) -> tuple[int, int, int]:
    return tuple(round(255 * value) for value in color)
