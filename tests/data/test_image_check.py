"""Every kind of bad image file is found, and said in one sentence with what to do."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from iwin_d2.data.image_check import check_image_files, diagnose_image, inspect_image

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
DEEP = (np.arange(600).reshape(20, 30) * 100).astype(np.uint16)


def save(path, image=None, **options):
    image = Image.fromarray(PIXELS) if image is None else image
    image.save(path, **options)
    return path


def turned(path, orientation=6):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(path, exif=exif)


def animated(path, **options):
    frames = [Image.new("RGB", (30, 20), (red, 0, 0)) for red in (0, 100, 200)]
    return save(path, frames[0], save_all=True, append_images=frames[1:], **options)


def transparent():
    image = Image.fromarray(PIXELS).convert("RGBA")
    image.putpixel((3, 3), (255, 0, 0, 10))
    return image


def truncated(path):
    save(path)
    path.write_bytes(path.read_bytes()[:-300])


def deep_colours(path):
    """A PNG of 16 bits a channel, which Pillow cannot write."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    rows = b"".join(b"\0" + bytes(30 * 6) for _ in range(20))
    header = struct.pack(">IIBBBBB", 30, 20, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*item) for item in chunks))


# file name, how it is made, kind, severity, what the sentence says
CASES = [
    ("gone.jpg", lambda path: None, "image-missing", "error", "does not exist"),
    (
        "zero.jpg",
        lambda path: path.write_bytes(b""),
        "image-damaged",
        "error",
        "is empty (0 bytes)",
    ),
    ("text.jpg", lambda path: path.write_text("x"), "image-damaged", "error", "not an image file"),
    ("folder.jpg", lambda path: path.mkdir(), "image-damaged", "error", "Is a directory"),
    ("half.jpg", truncated, "image-damaged", "error", "truncated or damaged"),
    ("half.png", truncated, "image-damaged", "error", "truncated or damaged"),
    (
        "deep.png",
        lambda path: save(path, Image.fromarray(DEEP)),
        "image-depth",
        "error",
        "16 or 32 bits a channel (Pillow's mode I;16), of which",
    ),
    (
        "deep.tif",
        lambda path: save(path, Image.fromarray(DEEP.astype(np.float32))),
        "image-depth",
        "error",
        "mode F",
    ),
    ("colours.png", deep_colours, "image-depth", "warning", "has 16 bits a channel: the upper"),
    ("a.gif", animated, "image-frames", "warning", "has 3 frames: the first is used"),
    ("a.png", animated, "image-frames", "warning", "has 3 frames"),
    ("a.webp", animated, "image-frames", "warning", "has 3 frames"),
    ("a.tif", animated, "image-frames", "warning", "has 3 frames"),
    ("turned.jpg", turned, "image-orientation", "error", "before its EXIF orientation is applied"),
    (
        "swapped.png",
        lambda path: save(path, Image.new("RGB", (20, 30))),
        "image-size",
        "error",
        "is 20x30 pixels, but the json says 30x20, width and height swapped",
    ),
    (
        "small.png",
        lambda path: save(path, Image.new("RGB", (29, 20))),
        "image-size",
        "error",
        "is 29x20 pixels, but the json says 30x20: correct",
    ),
    (
        "print.jpg",
        lambda path: save(path, Image.fromarray(PIXELS).convert("CMYK")),
        "image-colours",
        "warning",
        "has CMYK colours",
    ),
    (
        "rgba.png",
        lambda path: save(path, transparent()),
        "image-colours",
        "warning",
        "transparent pixels",
    ),
    (
        "palette.png",
        lambda path: save(path, Image.new("P", (30, 20)), transparency=0),
        "image-colours",
        "warning",
        "transparent pixels",
    ),
]


@pytest.mark.parametrize(
    ("name", "make", "kind", "severity", "text"), CASES, ids=[case[0] for case in CASES]
)
def test_bad_images(tmp_path, name, make, kind, severity, text):
    make(tmp_path / name)
    ((found, grade, sentence),) = inspect_image(tmp_path / name, 30, 20)
    assert (found, grade) == (kind, severity)
    assert sentence.startswith(str(tmp_path / name))
    assert text in sentence
    assert (diagnose_image(tmp_path / name, 30, 20) == sentence) == (severity == "error")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("plain.jpg", save),
        ("grey.png", lambda path: save(path, Image.fromarray(PIXELS).convert("L"))),
        ("palette.png", lambda path: save(path, Image.fromarray(PIXELS).convert("P"))),
        ("opaque.png", lambda path: save(path, Image.fromarray(PIXELS).convert("RGBA"))),
        ("bits.png", lambda path: save(path, Image.fromarray(PIXELS).convert("1"))),
        ("mirrored.jpg", lambda path: turned(path, 2)),
        ("camera.jpg", lambda path: animated(path, format="MPO")),  # a photograph and its previews
        (
            "exif.jpg",
            lambda path: save(path, exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff"),  # broken
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*EXIF")
def test_good_images(tmp_path, name, make):
    make(tmp_path / name)
    assert inspect_image(tmp_path / name, 30, 20) == []
    assert inspect_image(tmp_path / name) == []


def test_a_turned_image_of_the_jsons_size(tmp_path):
    assert diagnose_image(turned(tmp_path / "turned.jpg"), 20, 30) is None


def test_one_image_with_two_findings(tmp_path):
    animated(tmp_path / "a.gif")
    kinds = [kind for kind, _, _ in inspect_image(tmp_path / "a.gif", 99, 20)]
    assert kinds == ["image-frames", "image-size"]


@pytest.mark.parametrize("workers", [1, 3])
def test_files_are_read_in_parallel_and_reported_in_order(tmp_path, workers, monkeypatch):
    monkeypatch.setattr("iwin_d2.data.image_check._BLOCK", 4)
    images = {}
    for number in range(10):
        size = (30, 20) if number % 3 else (31, 20)
        save(tmp_path / f"{number}.png", Image.new("RGB", size))
        images[number] = {"id": number, "file_name": f"{number}.png", "width": 30, "height": 20}
    told = []
    problems = check_image_files(
        images, "x.json", str(tmp_path), True, workers, lambda *numbers: told.append(numbers)
    )
    assert [(p.kind, p.image_id) for p in problems] == [("image-size", i) for i in (0, 3, 6, 9)]
    assert told == [(4, 10), (8, 10), (10, 10)]
