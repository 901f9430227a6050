"""Label files: what they hold as class numbers, or one sentence that says what is wrong."""

import struct
import zlib

import numpy as np
import pytest
from label_files import LABELS, coloured, palette_file, turned, write_labels, write_picture
from PIL import Image

from iwin_d2.data.semantic_segmentation import LabelFormat, read_label, read_record_label
from iwin_d2.errors import ConfigError, DataError

FIVE = LabelFormat(num_classes=5)


def read(path, form=FIVE, **options):
    return read_label(path, form, **options)


def test_numbers_are_classes(tmp_path):
    labels = read(write_labels(tmp_path / "a.png"))
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, LABELS)


def test_ignored_pixels(tmp_path):
    values = LABELS.copy()
    values[3:5] = 255
    path = write_labels(tmp_path / "a.png", values)
    assert np.array_equal(read(path), values)
    other = read(path, ignored=77)
    assert np.array_equal(other, np.where(values == 255, 77, values))
    negative = read(path, ignored=-100)
    assert negative.min() == -100 and np.array_equal(negative[5:], LABELS[5:])


def test_zero_is_ignored_and_classes_count_from_one(tmp_path):
    values = LABELS.copy()
    values[0, 0] = 255
    labels = read(write_labels(tmp_path / "a.png", values), LabelFormat(4, reduce_zero_label=True))
    expected = np.where(values == 0, 255, values.astype(int) - 1)
    expected[0, 0] = 255
    assert labels.dtype == np.uint8 and np.array_equal(labels, expected)


def test_values_are_mapped(tmp_path):
    form = LabelFormat(2, label_values={0: 255, 1: 0, 2: 1, 3: 1, 4: 0})
    labels = read(write_labels(tmp_path / "a.png"), form)
    assert np.array_equal(labels, np.array([255, 0, 1, 1, 0])[LABELS])
    assert form.file_values() == [1, 2]


def test_more_classes_than_a_byte_holds(tmp_path):
    values = LABELS.astype(np.uint16) * 100
    values[0] = 65535
    labels = read(write_labels(tmp_path / "a.png", values), LabelFormat(401, ignore_value=65535))
    assert labels.dtype == np.int32 and np.array_equal(labels, values)


def test_sixteen_bits_of_few_classes(tmp_path):
    labels = read(write_labels(tmp_path / "a.tif", LABELS.astype(np.uint16)))
    assert labels.dtype == np.uint8 and np.array_equal(labels, LABELS)
    assert np.array_equal(read(write_labels(tmp_path / "b.tif", LABELS.astype(np.int32))), LABELS)


def test_one_bit(tmp_path):
    Image.fromarray(LABELS > 2).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png"), LABELS > 2)


def grey_png(path, values, bits):
    """A grey PNG of 2 or 4 bits a pixel, which Pillow cannot write."""

    def chunk(name, data):
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    as_bits = np.unpackbits(values[:, :, None], axis=2)[:, :, -bits:].reshape(len(values), -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(as_bits, axis=1))
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*item) for item in chunks))
    return path


@pytest.mark.parametrize("bits", [2, 4])
def test_few_bits_are_not_spread(tmp_path, bits):
    values = LABELS % 2**bits
    assert np.array_equal(read(grey_png(tmp_path / "a.png", values, bits)), values)


def test_a_palette_that_is_accepted(tmp_path):
    path = palette_file(tmp_path / "a.png")
    assert np.array_equal(read(path, LabelFormat(5, accept_palette=True)), LABELS)
    record = {"sem_seg_file_name": str(path), "num_classes": 5, "accept_palette": True}
    assert np.array_equal(read_record_label(record), LABELS)


def save(array, **options):
    return lambda path: Image.fromarray(array).save(path, **options)


def half(path):
    write_labels(path, np.random.default_rng(0).integers(0, 5, (99, 99)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:900])


WIDE = np.full((9, 9), 3, dtype=np.uint8)
OUTSIDE = LABELS.copy()
OUTSIDE[0, :7], OUTSIDE[1, :1] = 5, 9

# File name, how it is made, what the sentence says.
BAD = {
    "out of range": (
        "a.png",
        save(OUTSIDE),
        ("has labels out of range: 5 in 7 pixels, 9 in 1 pixel", "0 to 4 are classes, 255 is"),
    ),
    "counted from one": (
        "a.png",
        save(LABELS + 1),
        ("a label out of range: 5 in 120 pixels", "set reduce_zero_label=True"),
    ),
    "16 bits out of range": (
        "a.png",
        save(LABELS.astype(np.uint16) + 300),
        ("out of range: 300 in 120 pixels, 301",),
    ),
    "beyond 16 bits": ("a.tif", save(LABELS.astype(np.int32) - 7), ("has the label -7",)),
    "floats": ("a.tif", save(LABELS.astype(np.float32)), ("holds floating-point numbers",)),
    "colours": (
        "a.png",
        save(coloured()),
        ("is an RGB file", "in 120 pixels", "and 2 more", "write the number of the class"),
    ),
    "rgba": ("a.png", save(np.dstack([coloured(), WIDE[0, 0] + LABELS])), ("is an RGBA file",)),
    "grey rgb": (
        "a.png",
        save(np.dstack([LABELS] * 3)),
        ("is an RGB file", "its colour channels are equal", "save that one alone"),
    ),
    "photograph": (
        "a.png",
        lambda path: write_picture(path, (90, 80)),
        ("looks like a photograph", "check that this is the folder of the labels"),
    ),
    "palette": (
        "a.png",
        palette_file,
        ("is a palette file", "colours number 0, 1, 2, 3, 4 of its palette", "would be in range",
         "set dataset.accept_palette=True"),
    ),
    "palette out of range": (
        "a.png",
        lambda path: palette_file(path, LABELS * 50),
        ("number 0, 50, 100, 150, 200 of", "would not be in range"),
    ),
    "jpeg": (
        "a.jpg",
        save(LABELS),
        ("is a JPEG file, whose compression changes labels", "save the labels as PNG"),
    ),
    "turned": ("a.png", save(LABELS, exif=turned(6)), ("has an EXIF orientation", "remove the")),
    "missing": ("a.png", lambda path: None, ("does not exist", "check the label folder")),
    "empty": ("a.png", lambda path: path.write_bytes(b""), ("is empty (0 bytes)",)),
    "text": ("a.png", lambda path: path.write_text("0 1"), ("is not an image file",)),
    "folder": ("a.png", lambda path: path.mkdir(), ("cannot be read (Is a directory)",)),
    "half": ("a.png", half, ("is truncated or damaged", "copy it again")),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_label_file(tmp_path, name):
    file_name, make, essentials = BAD[name]
    make(tmp_path / file_name)
    with pytest.raises(DataError) as caught:
        read(tmp_path / file_name)
    sentence = str(caught.value)
    assert str(tmp_path / file_name) in sentence
    assert sentence.endswith(".") and "\n" not in sentence
    for essential in essentials:
        assert essential in sentence


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_classes": 300}, "ignore_value=255 is the number of a class .0 to 299."),
        ({"num_classes": 4, "ignore_value": 0}, "set reduce_zero_label=True"),
        ({"num_classes": 4, "ignore_value": 4, "reduce_zero_label": True}, "0 to 4"),
        (
            {"num_classes": 4, "ignore_value": 0, "reduce_zero_label": True},
            "0 is ignored in any case, so leave it at 255",
        ),
        ({"ignore_value": -1}, "cannot stand in a label file"),
        ({"num_classes": 2, "label_values": {0: 0}}, "has no value for class 1"),
        ({"num_classes": 1, "label_values": {0: 0, 1: 1}}, "gives a value to class 1"),
        ({"num_classes": 2, "label_values": {0: 0, 255: 1}}, "hides its pixels"),
        ({"label_values": {"a": 0}}, "must map values in the files to class numbers"),
        ({"label_values": {70000: 0}}, "70000, which no label file can hold"),
        ({"label_values": {0: 0}, "reduce_zero_label": True}, "leave one of them out"),
    ],
)
def test_settings_that_contradict_each_other(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        LabelFormat(**settings)


def test_a_format_survives_its_record():
    form = LabelFormat(3, 7, label_values={0: 7, 1: 0, 2: 1, 3: 2}, accept_palette=True)
    record = {"file_name": "x", **form.as_record()}
    assert LabelFormat.of_record(record) == form
    assert LabelFormat().as_record() == {}
    assert form.describe() == "1, 2 and 3 are classes, 0 and 7 are ignored"
