"""Images in class folders and in shards, read as a viewer shows them."""

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from iwin_d2.data.classification.image_folder import (
    image_folder_classes,
    load_image_folder,
    num_image_folder_classes,
)
from iwin_d2.data.classification.image_mapper import ImageMapper
from iwin_d2.data.classification.shards import expand_braces, load_shards
from iwin_d2.errors import AugmentationError, DataError

RNG = np.random.default_rng(0)


def encoded(pixels, form="png", **options):
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, form, **options)
    return file.getvalue()


def pixels(height=6, width=9):
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    for name, files in {
        "dog": ["b.png", "a.PNG"],
        "cat": ["deep/c.png"],
        ".git": ["x.png"],
    }.items():
        for file in files:
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(pixels()))
    (tmp_path / "dog/notes.txt").write_text("no image")
    (tmp_path / "readme.txt").write_text("no class")
    return tmp_path


def test_folders_are_classes(folder):
    assert image_folder_classes(folder) == ["cat", "dog"] and num_image_folder_classes(folder) == 2
    records = load_image_folder(str(folder))
    assert [record["file_name"].removeprefix(f"{folder}/") for record in records] == [
        "cat/deep/c.png",
        "dog/a.PNG",
        "dog/b.png",
    ]
    assert [record["label"] for record in records] == [0, 1, 1]
    assert [record["image_id"] for record in records] == [0, 1, 2]


def test_a_test_set_without_some_classes(folder, tmp_path_factory):
    test = tmp_path_factory.mktemp("test")
    (test / "dog").mkdir()
    (test / "dog/d.png").write_bytes(encoded(pixels()))
    assert load_image_folder(str(test), same_classes_as=str(folder))[0]["label"] == 1
    (test / "bird").mkdir()
    with pytest.raises(DataError, match=r"has the class 'bird', which .* has not"):
        load_image_folder(str(test), same_classes_as=str(folder))


def test_folders_that_cannot_be_used(folder, tmp_path_factory):
    with pytest.raises(DataError, match=r"cannot be read .*: correct the path"):
        load_image_folder(str(folder / "nowhere"))
    with pytest.raises(DataError, match="There is no folder in"):
        load_image_folder(str(tmp_path_factory.mktemp("empty")))
    (folder / "eel").mkdir()
    with pytest.raises(DataError, match=r"class folder .*/eel has no image \(\.bmp, "):
        load_image_folder(str(folder))


def reference(data):
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert("RGB"))).permute(2, 0, 1)


def turned(exif):
    image = Image.fromarray(pixels(6, 9))
    options = image.getexif()
    options[0x0112] = exif
    return encoded(image, "jpeg", exif=options, quality=95)


KINDS = {
    "png": lambda: encoded(pixels()),
    "jpeg": lambda: encoded(pixels(), "jpeg", quality=95),
    "grey": lambda: encoded(pixels()[..., 0]),
    "palette": lambda: encoded(Image.fromarray(pixels()).quantize(16)),
    "transparent": lambda: encoded(Image.fromarray(pixels()).convert("RGBA")),
    "gif": lambda: encoded(Image.fromarray(pixels()).quantize(16), "gif"),
    "webp": lambda: encoded(pixels(), "webp", lossless=True),
    "bmp": lambda: encoded(pixels(), "bmp"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_what_pillow_reads(tmp_path, kind):
    data = KINDS[kind]()
    (tmp_path / "image").write_bytes(data)
    item = ImageMapper()({"file_name": str(tmp_path / "image"), "label": 3})
    assert item["image"].dtype == torch.uint8 and item["label"] == 3
    error = (item["image"].int() - reference(data).int()).abs()
    assert error.max() <= (3 if kind == "jpeg" else 0)


def test_images_are_turned_as_a_viewer_does(tmp_path):
    (tmp_path / "image.jpg").write_bytes(turned(6))
    image = ImageMapper()({"file_name": str(tmp_path / "image.jpg")})["image"]
    assert image.shape == (3, 9, 6)


def test_cmyk_and_deep_images(tmp_path):
    cmyk = encoded(Image.fromarray(pixels()).convert("CMYK"), "jpeg", quality=95)
    deep = encoded(Image.fromarray(pixels()[..., 0].astype(np.uint16) * 257))
    for data in (cmyk, deep):
        (tmp_path / "image").write_bytes(data)
        image = ImageMapper()({"file_name": str(tmp_path / "image")})["image"]
        assert image.shape == (3, 6, 9) and image.dtype == torch.uint8
    expected = np.array(Image.open(tmp_path / "image")).astype(np.int32) // 257
    assert (image[0].int() - torch.from_numpy(expected)).abs().max() <= 1


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (None, "does not exist|cannot be read"),
        (b"", "is empty"),
        (b"no image at all", "image"),
        (encoded(pixels(60, 90))[:300], "image"),
    ],
    ids=["missing", "empty", "text", "cut off"],
)
def test_files_that_are_no_images(tmp_path, data, sentence):
    path = tmp_path / "image.png"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataError, match=sentence) as caught:
        ImageMapper()({"file_name": str(path)})
    assert str(path) in str(caught.value)


def test_augmentations_that_fail(tmp_path):
    (tmp_path / "image.png").write_bytes(encoded(pixels()))
    mapper = ImageMapper([lambda image: image[:, 2:], lambda image: image.reshape(1, 2)])
    with pytest.raises(AugmentationError, match=r"image.png cannot be prepared .*augmentations"):
        mapper({"file_name": str(tmp_path / "image.png")})


# ---- shards -------------------------------------------------------------------------------------


def write_shard(path, members, mode="w"):
    with tarfile.open(path, mode) as shard:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))


def test_shards_give_what_was_put_in(tmp_path):
    images = [encoded(pixels()) for _ in range(5)]
    write_shard(
        tmp_path / "train-000.tar",
        [("a/0.png", images[0]), ("a/0.cls", b"2"), ("a/1.cls", b"0\n"), ("a/1.png", images[1])],
    )
    write_shard(
        tmp_path / "train-001.tar",
        [
            member
            for i in (2, 3, 4)
            for member in (
                (f"{i}.seg.png", b"something else"),
                (f"{i}.json", json.dumps({"label": i % 3}).encode()),
                (f"{i}.png", images[i]),
            )
        ],
    )
    records = load_shards(str(tmp_path / "train-{000..001}.tar"), num_classes=3)
    assert [record["label"] for record in records] == [2, 0, 2, 0, 1]
    assert records[0]["file_name"] == f"{tmp_path}/train-000.tar/a/0.png"
    mapper = ImageMapper()
    for record, data in zip(pickle.loads(pickle.dumps(records)), images, strict=True):
        assert torch.equal(mapper(record)["image"], reference(data))


@pytest.mark.parametrize(
    ("pattern", "expanded"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{x,y}-{1..2}", ["x-1", "x-2", "y-1", "y-2"]),
    ],
)
def test_braces(pattern, expanded):
    assert expand_braces(pattern) == expanded


def test_shards_that_cannot_be_used(tmp_path):
    def load(members, mode="w", **options):
        write_shard(tmp_path / "s.tar", members, mode)
        return load_shards(str(tmp_path / "s.tar"), **options)

    image = ("0.png", encoded(pixels()))
    with pytest.raises(DataError, match=r"x-1\.tar does not exist \(2 of 2 are missing\)"):
        load_shards(str(tmp_path / "x-{1..2}.tar"))
    with pytest.raises(DataError, match="is an empty range"):
        load_shards("x-{2..1}.tar")
    with pytest.raises(DataError, match=r"0 has no class \(\.cls or \.json\)"):
        load([image])
    with pytest.raises(DataError, match=r"has no image .* but cls"):
        load([("0.cls", b"1")])
    with pytest.raises(DataError, match="is b'dog', which is no whole number"):
        load([image, ("0.cls", b"dog")])
    with pytest.raises(DataError, match=r"has the class 7, but there are 7, 0 to 6"):
        load([image, ("0.cls", b"7")], num_classes=7)
    with pytest.raises(DataError, match="is no tar file, is compressed or cut off"):
        load([image, ("0.cls", b"7")], mode="w:gz")


def test_a_shard_that_has_changed(tmp_path):
    write_shard(tmp_path / "s.tar", [("0.png", encoded(pixels())), ("0.cls", b"1")])
    (record,) = load_shards(str(tmp_path / "s.tar"))
    (tmp_path / "s.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"s\.tar has become shorter"):
        ImageMapper()(record)
