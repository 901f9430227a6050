"""Bad images: each ends a training in one sentence that names the file; odd ones are trained on."""

import os
import struct
import zlib

import numpy as np
import pytest
from bad_input import Coco, assert_says, write_image
from PIL import Image


def put(data: Coco, name: str, **options):
    """Make image 1 a file of this name."""
    data.first_image.unlink()
    data.edit(lambda content: content["images"][0].update(file_name=name))
    return write_image(data.train_images / name, **options)


def cut(name: str, share: float):
    def make(data: Coco) -> None:
        path = put(data, name)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return make


def damaged(data: Coco) -> None:
    content = bytearray(data.first_image.read_bytes())
    for position in range(len(content) // 3, len(content), 7):
        content[position] ^= 0x5A
    data.first_image.write_bytes(content)


def turned(data: Coco) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    put(data, "1.jpg", exif=exif)


def deep(data: Coco) -> None:
    path = put(data, "1.png")
    Image.fromarray(np.full((48, 64), 40000, dtype=np.uint16)).save(path)


def animated(name: str):
    def make(data: Coco) -> None:
        path = put(data, name)
        frames = [Image.new("RGB", (64, 48), colour) for colour in ("red", "green")]
        frames[0].save(path, save_all=True, append_images=frames[1:])

    return make


def of_size(width: int, height: int):
    """A file of this size, as the json says, with one object that fits."""

    def make(data: Coco) -> None:
        put(data, "1.png", size=(width, height))

        def change(content: dict) -> None:
            content["images"][0].update(width=width, height=height)
            content["annotations"][0].update(
                bbox=[0, 0, width, height],
                segmentation=[[0, 0, width, 0, width, height, 0, height]],
            )
            del content["annotations"][1]

        data.edit(change)

    return make


def bomb(data: Coco) -> None:
    """A header that promises ten billion pixels."""
    path = put(data, "1.png")
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 10**5, 10**5)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


def folder(data: Coco) -> None:
    data.first_image.unlink()
    data.first_image.mkdir()


def link_to_nothing(data: Coco) -> None:
    data.first_image.unlink()
    data.first_image.symlink_to("nowhere.jpg")


def all_empty(data: Coco) -> None:
    for path in data.train_images.iterdir():
        path.write_bytes(b"")


def first_empty(data: Coco) -> None:
    data.first_image.write_bytes(b"")


FIRST = "image id 1: {images}/1"

# What is done to image 1, overrides, and what must be said: which file, what it is, what to do.
CASES = {
    "empty": (first_empty, [], (FIRST + ".jpg is empty (0 bytes)", "copy or download it again")),
    "cut jpeg": (cut("1.jpg", 0.5), [], (FIRST + ".jpg is truncated", "download it again")),
    "cut png": (cut("1.png", 0.5), [], (FIRST + ".png is truncated", "download it again")),
    "cut header": (cut("1.jpg", 0.02), [], (FIRST + ".jpg is", "truncated")),
    "damaged jpeg": (damaged, [], (FIRST + ".jpg is truncated or damaged", "download it again")),
    "text": (
        lambda data: data.first_image.write_text("no image"),
        [],
        (FIRST + ".jpg is not an image file", "replace it"),
    ),
    "web page": (
        lambda data: data.first_image.write_text("<html>404</html>"),
        [],
        (FIRST + ".jpg is not an image file", "replace it"),
    ),
    "16 bits": (deep, [], (FIRST + ".png is an image of 16 or 32 bits", "convert it to 8 bits")),
    "turned": (turned, [], (FIRST + ".jpg is 48x64 pixels", "json says 64x48", "EXIF")),
    "swapped": (
        lambda data: put(data, "1.jpg", size=(48, 64)),
        [],
        (FIRST + ".jpg is 48x64 pixels", "json says 64x48", "width and height swapped"),
    ),
    "other size": (
        lambda data: put(data, "1.jpg", size=(640, 480)),
        [],
        (FIRST + ".jpg is 640x480 pixels", "json says 64x48", "correct the json"),
    ),
    "bomb": (bomb, [], (FIRST + ".png is too large to be read safely",)),
    "folder": (folder, [], (FIRST + ".jpg cannot be read", "Is a directory")),
    "link to nothing": (link_to_nothing, [], (FIRST + ".jpg does not exist", "check the image")),
    "in a worker": (first_empty, ["dataloader.train.num_workers=1"], (FIRST + ".jpg is empty",)),
    "more than allowed": (
        all_empty,
        ["dataloader.train.max_bad_images=1"],
        ("More than dataloader.train.max_bad_images=1 images are bad", ".jpg is empty (0 bytes)"),
    ),
    "all bad, all allowed": (
        all_empty,
        ["dataloader.train.max_bad_images=9"],
        ("none of the training images", "check the data set"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_image(data, train_badly, name):
    change, overrides, essentials = CASES[name]
    change(data)
    sentence = train_badly(*overrides, before_training=False)
    assert_says(sentence, essentials, images=data.train_images)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_an_image_that_may_not_be_read(data, train_badly):
    data.first_image.chmod(0)
    sentence = train_badly(before_training=False)
    assert_says(sentence, ("{path} cannot be read", "permissions"), path=data.first_image)


def test_a_bad_test_image_ends_the_evaluation(data, train_badly):
    (data.test_images / "1.jpg").write_bytes(b"")
    sentence = train_badly(before_training=False)
    assert_says(sentence, ("{path} is empty",), path=data.test_images / "1.jpg")


def test_one_bad_image_is_left_out_where_that_is_allowed(data, train_well):
    first_empty(data)
    log = train_well("dataloader.train.max_bad_images=1")
    assert (
        f"Left out bad image 1 of at most 1 (dataloader.train.max_bad_images): {FIRST[:10]}" in log
    )


ODD = {
    "cmyk": lambda data: put(data, "1.jpg", mode="CMYK"),
    "palette": lambda data: put(data, "1.png", mode="P"),
    "grey": lambda data: put(data, "1.png", mode="L"),
    "black and white": lambda data: put(data, "1.png", mode="1"),
    "transparent": lambda data: put(data, "1.png", mode="RGBA"),
    "gif": animated("1.gif"),
    "animated png": animated("1.png"),
    "one pixel": of_size(1, 1),
    "very wide": of_size(90, 2),
    "very high": of_size(2, 90),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_image_is_trained_on(data, train_well, name):
    ODD[name](data)
    train_well()
