"""Pictures side by side."""

import numpy as np
from PIL import Image

from iwin_d2.engine.panels import Panel, compose, legend_lines, load_font

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def panel(color, size=(300, 100), title="a title"):
    return Panel(title, Image.new("RGB", size, color))


def where(picture, color) -> tuple[int, int, int, int]:
    """The box around the pixels of a colour: x0, y0, x1, y1."""
    ys, xs = np.nonzero((np.asarray(picture) == color).all(2))
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


def test_panels_stand_in_rows_and_nothing_covers_anything():
    panels = [panel(RED), panel(GREEN, (200, 140)), panel(BLUE)]
    picture = compose(panels, heading="Three", columns=2)
    red, green, blue = (where(picture, color) for color in (RED, GREEN, BLUE))
    assert (red[2] - red[0], red[3] - red[1]) == (300, 100)
    assert green[0] > red[2] and green[1] == red[1]
    assert blue[0] == red[0] and blue[1] > green[3]
    for color, size in ((RED, 30000), (GREEN, 28000), (BLUE, 30000)):
        assert (np.asarray(picture) == color).all(2).sum() == size


def test_long_texts_are_broken_or_cut():
    plain = compose([panel(RED)], heading="short")
    long = compose([panel(RED, title="word " * 60)], heading="word " * 40, remarks=["a b " * 90])
    assert long.width == plain.width
    assert long.height > plain.height + 60
    _, y0, _, _ = where(long, RED)
    dark = np.asarray(long.convert("L")) < 128
    assert not dark[:, -20:].any()  # no text runs out of the picture
    assert dark[:y0].any(1).sum() > 3 * dark[: where(plain, RED)[1]].any(1).sum() / 2


def test_the_legend_and_the_footer_are_below():
    footer = Image.new("RGB", (200, 20), GREEN)
    picture = compose(
        [panel(RED)], heading="x", legend=[("blue", (0.0, 0.0, 1.0))] * 12, footer=footer
    )
    red, green, blue = (where(picture, color) for color in (RED, GREEN, BLUE))
    assert red[3] < green[1] and green[3] < blue[1]
    assert blue[3] - blue[1] > 26  # more than one line
    lines = legend_lines([("blue", (0.0, 0.0, 1.0))] * 12, load_font(14), 480)
    assert sum(len(line) for line in lines) == 12
    assert all(x + 24 + load_font(14).getlength("blue") <= 480 for line in lines for x, *_ in line)
