"""Label maps on images: colours, contours, legends, label files."""

import numpy as np
import pytest
from PIL import Image

from iwin_d2.engine.prediction_files import write_labels
from iwin_d2.engine.segment_drawing import (
    WRONG,
    draw_errors,
    draw_segments,
    segment_color,
    share_text,
)
from iwin_d2.engine.segment_legend import Entry, LegendGrid

GREY = np.full((20, 30, 3), 100, dtype=np.uint8)


def lab(colors):
    """CIE L*a*b* of RGB in [0, 1], by Pillow's littleCMS."""
    from PIL import ImageCms

    image = Image.fromarray((255 * np.array(colors)).round().astype(np.uint8)[None])
    profile = ImageCms.createProfile("sRGB")
    found = ImageCms.profileToProfile(
        image, profile, ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    values = np.asarray(found).astype(float)[0]
    return np.stack([values[:, 0] / 2.55, *((values[:, i] + 128) % 256 - 128 for i in (1, 2))], 1)


@pytest.mark.parametrize(("count", "least"), [(4, 80), (19, 28), (150, 8)])
def test_colours_can_be_told_apart(count, least):
    # A difference of about 2 is the least that eyes see side by side.
    colors = lab([segment_color(index) for index in range(count)])
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=-1)
    assert distances[~np.eye(count, dtype=bool)].min() > least


def test_colours_are_the_same_in_every_run():
    rounded = [tuple(round(255 * value) for value in segment_color(i)) for i in (0, 1, 149)]
    assert rounded[0] == (238, 34, 34)
    assert segment_color(600) == segment_color(600 % 512)
    assert len(set(rounded)) == 3


def test_classes_are_drawn_with_contours_and_what_has_none_is_hatched():
    labels = np.zeros((20, 30), dtype=np.int64)
    labels[:, 15:] = 3
    labels[10:, :15] = -1
    drawn = draw_segments(GREY, labels, opacity=0.5).astype(float)
    colors = [255 * np.array(segment_color(number)) for number in (0, 3)]
    for place, color in (((4, 5), colors[0]), ((4, 25), colors[1])):
        assert np.abs(drawn[place] - (100 + color) / 2).max() <= 1
    for column, color in ((14, colors[0]), (15, colors[1])):
        assert np.abs(drawn[2:8, column] - color).max() <= 1  # opaque
    hatched = drawn[11:, :14]
    assert np.ptp(hatched, axis=2).max() == 0  # grey
    assert len(np.unique(hatched)) == 2


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_pictures_are_of_the_scale_and_labels_of_any_type(scale):
    labels = np.zeros((20, 30), dtype=np.uint8)
    labels[:, 10:] = 200
    drawn = draw_segments(GREY, labels, scale=scale, opacity=1)
    assert drawn.shape == (20 * scale, 30 * scale, 3) and drawn.dtype == np.uint8
    border = round(10 * scale)
    for part, number in ((drawn[:, :border], 0), (drawn[:, border:], 200)):
        assert np.abs(part - 255 * np.array(segment_color(number))).max() <= 1
    np.testing.assert_array_equal(
        draw_segments(GREY, labels.astype(np.int32), scale=scale),
        draw_segments(GREY, labels, scale=scale),
    )


def test_errors_are_of_one_colour_and_leave_out_what_does_not_count():
    truth, predicted = np.zeros((20, 30), dtype=int), np.zeros((20, 30), dtype=int)
    predicted[5:10] = 1
    truth[:, 20:] = -1
    drawn = draw_errors(GREY, truth, predicted)
    red = np.abs(drawn - 255 * np.array(WRONG)).max(2) <= 1
    expected = np.zeros((20, 30), dtype=bool)
    expected[5:10, :20] = True
    np.testing.assert_array_equal(red, expected)


def test_shares_are_not_rounded_to_nothing():
    assert [share_text(x) for x in (0, 0.0001, 0.123, 1)] == [
        "0.0 %",
        "< 0.1 %",
        "12.3 %",
        "100.0 %",
    ]


# ---- legends -------------------------------------------------------------------------------------


def squares(strip, color):
    """The places (x, y) of the squares of a colour, at their upper left."""
    found = (np.abs(strip - 255 * np.array(color)).max(2) <= 1).astype(int)
    ys, xs = np.nonzero(found)
    return (xs.min(), ys.min()) if len(xs) else None


def test_entries_stand_in_columns():
    colors = [segment_color(number) for number in range(7)]
    entries = [Entry(f"name {number}", "50.0 %", color) for number, color in enumerate(colors)]
    grid = LegendGrid(500, [entry.name for entry in entries])
    strip = grid.draw(entries)
    assert strip.shape[1] == 500 and grid.columns == 3
    places = [squares(strip, color) for color in colors]
    assert len({x for x, _ in places}) == 3 and len({y for _, y in places}) == 3
    assert places[3][0] == places[0][0] and places[3][1] > places[0][1]
    assert not (strip[:, -2:] != 255).any()


def test_the_height_depends_on_the_lines_alone():
    grid = LegendGrid(400, ["a", "b"])
    entry = Entry("a", "1.0 %", (1.0, 0.0, 0.0))
    assert grid.draw([], lines=2).shape == grid.draw([entry] * 99, lines=2).shape
    full, faint = grid.draw([entry]), grid.draw([entry._replace(faint=True, value="")])
    red = [(strip == (255, 0, 0)).all(2).sum() for strip in (full, faint)]
    assert red[0] > 2 * red[1] > 0


@pytest.mark.parametrize("width", [20, 90, 300])
def test_long_names_and_narrow_pictures(width):
    names = ["a class with a name that does not end before this", "b"]
    entries = [Entry(name, "12.3 %", (0.0, 0.0, 1.0)) for name in names]
    strip = LegendGrid(width, names).draw(entries)
    assert strip.shape[1] == width


def test_letters_grow_with_the_picture():
    entry = Entry("name", "1.0 %", (0.0, 0.0, 1.0))
    small, large = (LegendGrid(width, ["name"]).draw([entry]) for width in (900, 3600))
    assert large.shape[0] == pytest.approx(4 * small.shape[0], rel=0.1)
    blue = [(strip == (0, 0, 255)).all(2).sum() for strip in (small, large)]
    assert blue[1] > 10 * blue[0]


# ---- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "num_classes", "mode"),
    [(3, 0, "L"), (254, 255, "L"), (254, 0, "L"), (255, 0, "I;16"), (2, 256, "I;16")],
)
def test_label_files_hold_class_numbers(tmp_path, most, num_classes, mode):
    labels = np.array([[0, 1], [most, 2]], dtype=np.int32)
    write_labels(labels, tmp_path / "labels.png", num_classes)
    with Image.open(tmp_path / "labels.png") as image:
        assert image.mode == mode
        np.testing.assert_array_equal(np.asarray(image), labels)
