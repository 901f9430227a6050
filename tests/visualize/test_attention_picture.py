"""The drawing of a window and of attention weights."""

from dataclasses import replace

import numpy as np
import pytest

from iwin_d2.errors import ConfigError
from iwin_d2.visualize import WindowAttention, attention_picture, describe_attention

RED, CYAN, YELLOW = (255, 38, 38), (26, 217, 255), (253, 231, 37)
CELL = 80  # pixels of a token: five for one of the model's input
TILE = 8 * CELL
LEFT, TOP = 24, 16 + 28 + 26  # of the first drawing


def attention(**change) -> WindowAttention:
    """A map of 7 x 8 tokens in windows of 2 x 2, filled up to 8 x 8; the image ends before it."""
    weights = np.array([[[0.7, 0.1], [0.1, 0.1]], [[0.0, 0.25], [0.25, 0.5]]], dtype=np.float32)
    values = {
        "stage": "res4",
        "block": 5,
        "stride": 16,
        "image_size": (100, 128),
        "input_size": (112, 128),
        "map_size": (7, 8),
        "groups": (4, 4),
        "window": (3, 1),
        "token": (3, 5),
        "rows": np.array([3, 7]),
        "columns": np.array([1, 5]),
        "weights": weights,
    }
    return WindowAttention(**{**values, **change})


IMAGE = np.full((100, 128, 3), 200, dtype=np.uint8)


def panels(picture, count=2):
    pixels = np.asarray(picture).astype(int)
    return [pixels[TOP : TOP + TILE, LEFT + i * (TILE + 10) :][:, :TILE] for i in range(count)]


def middle(panel, row, column):
    """The colour in the middle of a token."""
    return panel[int((row + 0.5) * CELL), int((column + 0.5) * CELL)]


def test_the_tokens_of_the_window_are_marked():
    window, _ = panels(attention_picture(attention(), IMAGE, tile_size=TILE))
    assert tuple(window[3 * CELL, CELL + 10]) == CYAN  # the upper edge of a cell
    assert np.abs(middle(window, 3, 1) - 200).max() > 40
    assert tuple(middle(window, 2, 1)) == (200, 200, 200)  # a neighbour is of another window
    assert tuple(window[3 * CELL - 2, 5 * CELL + 10]) == RED  # around the one that attends
    assert (
        tuple(window[6 * CELL + 60, 10]) != tuple(window[7 * CELL + 60, 10]) != (200, 200, 200)
    )  # two paddings


def test_colours_are_the_roots_of_the_weights():
    for head, brightest in ((0, (3, 1)), (1, (7, 5))):
        _, heat = panels(attention_picture(attention(), IMAGE, head, tile_size=TILE))
        assert tuple(middle(heat, *brightest)) == YELLOW
    assert np.abs(middle(heat, 3, 1) - (68, 1, 84)).max() <= 1  # a weight of 0
    # 0.25 of 0.5 at most: the root lies at 0.71, between the colours at 0.5 and 0.75.
    expected = np.array([33, 145, 140]) + (0.7071 - 0.5) * 4 * (
        np.array([94, 201, 98]) - [33, 145, 140]
    )
    assert np.abs(middle(heat, 3, 5) - expected).max() <= 1
    _, mean = panels(attention_picture(attention(), IMAGE, "mean", tile_size=TILE))
    assert tuple(middle(mean, 3, 1)) == YELLOW


def test_all_heads_are_drawn_with_one_scale():
    picture = attention_picture(attention(), IMAGE, "all", tile_size=round(TILE / 0.6))
    _, first = panels(picture)
    assert tuple(middle(first, 3, 1)) == YELLOW
    pixels = np.asarray(picture).astype(int)
    second = pixels[TOP + TILE + 10 + 26 :, LEFT : LEFT + TILE][:TILE]
    assert tuple(middle(second, 7, 5)) != YELLOW  # 0.5 where the other head has 0.7
    assert middle(second, 7, 5)[1] > 200


def test_small_tokens_are_enlarged_and_the_window_that_fills_the_map_is_not():
    small = attention(stride=1, image_size=(7, 8), input_size=(7, 8))
    window, _ = panels(attention_picture(small, IMAGE[:7, :8], tile_size=TILE))
    assert tuple(window[3 * CELL, CELL + 10]) == CYAN
    tiny = np.asarray(attention_picture(attention(), IMAGE, tile_size=40))  # tokens of five pixels
    marked = (tiny == RED).all(2).sum() - 17 * 17  # that in the legend
    assert marked >= 2 * (15 * 15 - 9 * 9)  # frames of three pixels around nine


def test_the_words_say_where_the_attention_goes():
    heading, line = describe_attention(attention(), 0)
    assert "Stage res4, block 5: the token of row 3, column 5" in heading
    assert "(pixels 80 to 95, 48 to 63) in a map of 7 x 8 tokens" in heading
    assert "head 0: 80.0 % image, 20.0 % map padding; largest weight 0.700" in line
    lines = describe_attention(attention(), "all")
    assert [line.split(":")[0] for line in lines[1:]] == ["head 0", "head 1"]
    inside = attention(rows=np.array([0, 4]), token=(0, 1), window=(0, 1))
    assert "mean of the heads: 100.0 % image; largest" in describe_attention(inside, "mean")[1]
    border = attention(image_size=(40, 128), rows=np.array([0, 4]), token=(0, 1), window=(0, 1))
    assert "25.0 % image, 75.0 % image padding" in describe_attention(border, 1)[1]


def test_tokens_side_by_side_leave_the_image_to_be_seen():
    crowded = attention(groups=(1, 1), window=(0, 0), token=(0, 0), map_size=(2, 2))
    crowded = replace(crowded, rows=np.array([0, 1]), columns=np.array([0, 1]), stride=64)
    _, heat = panels(attention_picture(crowded, IMAGE, 0, tile_size=TILE))
    assert tuple(heat[160, 160]) == YELLOW
    assert np.ptp(heat[340:380, 340:380].reshape(-1, 3), axis=0).max() == 0  # between four tokens


@pytest.mark.parametrize("head", [2, -1, "best"])
def test_a_head_that_is_not_there_is_named(head):
    with pytest.raises(ConfigError, match=f"no head {head}: its heads are 0 to 1; or give mean"):
        attention_picture(attention(), IMAGE, head)
