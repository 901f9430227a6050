"""Bad label images and class files: each ends a training in one sentence; odd ones train."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from bad_input import assert_says, load_tool, write_image
from PIL import Image

from iwin_d2.engine.cli import run_tool

CONFIG = Path(__file__).parent / "tiny_segmentation_config.py"
CLASSES = ["sky", "tree", "road"]


@dataclass
class Folders:
    """Two training images with labels, and one to test."""

    root: Path

    def __post_init__(self):
        for split, count in (("train", 2), ("test", 1)):
            for number in range(1, count + 1):
                self.images(split).mkdir(parents=True, exist_ok=True)
                self.labels(split).mkdir(parents=True, exist_ok=True)
                write_image(self.images(split) / f"{number}.jpg")
                write_label(self.labels(split) / f"{number}.png")
        self.classes.write_text("\n".join(CLASSES))

    def images(self, split: str = "train") -> Path:
        return self.root / split / "images"

    def labels(self, split: str = "train") -> Path:
        return self.root / split / "labels"

    @property
    def classes(self) -> Path:
        return self.root / "classes.txt"

    @property
    def first_image(self) -> Path:
        return self.images() / "1.jpg"

    @property
    def first(self) -> Path:
        """The first label image."""
        return self.labels() / "1.png"

    @property
    def overrides(self) -> list[str]:
        """What a config for one's own data wants to know."""
        return [
            f"dataset.train_images={self.images()}",
            f"dataset.train_labels={self.labels()}",
            f"dataset.test_images={self.images('test')}",
            f"dataset.test_labels={self.labels('test')}",
            f"dataset.classes={self.classes}",
            f"train.output_dir={self.root / 'output'}",
        ]


LABELS = (np.arange(48 * 64) % 3).astype(np.uint8).reshape(48, 64)
NOISE = np.random.default_rng(0).integers(0, 3, (48, 64)).astype(np.uint8)


def write_label(path: Path, values: np.ndarray = LABELS, **options) -> None:
    Image.fromarray(values).save(path, **options)


@pytest.fixture
def folders(tmp_path) -> Folders:
    """A small data set without fault."""
    return Folders(tmp_path / "data")


def arguments(folders, overrides) -> list[str]:
    return ["--config-file", str(CONFIG), *folders.overrides, *overrides]


@pytest.fixture
def refused(folders, run_badly):
    """Train one step; returns the sentence that stops it."""

    def train(*overrides, **options) -> str:
        return run_badly("lazyconfig_train_net", *arguments(folders, overrides), **options)

    return train


@pytest.fixture
def trained(folders, capsys):
    """Train one step; returns what is printed."""

    def train(*overrides) -> str:
        capsys.readouterr()
        argv = arguments(folders, overrides)
        assert run_tool(lambda: load_tool("lazyconfig_train_net")(argv)) == 0
        assert (folders.root / "output" / "model_final.pth").exists()
        return capsys.readouterr().out

    return train


def names(content: str, encoding: str = "utf-8"):
    return lambda folders: folders.classes.write_bytes(content.encode(encoding))


def first(values: np.ndarray, **options):
    """Other values for the first label image."""
    return lambda folders: write_label(folders.first, values, **options)


def palette(folders) -> None:
    image = Image.frombytes("P", LABELS.shape[::-1], LABELS.tobytes())
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0] + [1] * 759)
    image.save(folders.first)


def jpeg(folders) -> None:
    folders.first.unlink()
    write_label(folders.first.with_suffix(".jpg"))


def turned(folders) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(folders.first_image, exif=exif)


def masks(folders) -> None:
    for path in list(folders.labels().iterdir()):
        path.rename(path.with_stem(f"{path.stem}_mask"))


COLOURS = np.array([[128, 0, 0], [0, 128, 0], [0, 0, 128]], dtype=np.uint8)[LABELS]

# What is done, overrides, and what must be said before the first step.
BEFORE = {
    "class twice": (
        names("sky\ntree\nsky\n"),
        [],
        ("{classes} has the name 'sky' twice, in lines 1 and 3", "a name of its own"),
    ),
    "empty line": (names("sky\n\ntree\n"), [], ("line 2 of the class file {classes} is empty",)),
    "no class": (names(""), [], ("{classes} is empty", "one a line")),
    "latin-1": (names("sky\nmür\n", "latin-1"), [], ("{classes} is not UTF-8", "save it as UTF-8")),
    "utf-16": (names("sky\ntree\n", "utf-16"), [], ("{classes} is not UTF-8",)),
    "table": (names("1\tsky\n2\ttree\n"), [], ("line 1 of the class file {classes} has tabs",)),
    "no class file": (
        lambda folders: folders.classes.unlink(),
        [],
        ("the class file {classes} does not exist", "check the path"),
    ),
    "other count": (
        None,
        ["dataset.num_classes=4"],
        ("{classes} has 3 names, but num_classes=4",),
    ),
    "neither": (None, ["dataset.classes=null"], ("a text file with their names",)),
    "ignored class": (
        None,
        ["dataset.ignore_value=1"],
        ("ignore_value=1 is the number of a class (0 to 2)",),
    ),
    "ignored zero": (
        None,
        ["dataset.ignore_value=0"],
        ("where 0 means no class and classes count from 1, set reduce_zero_label=True",),
    ),
    "mapped class lacking": (
        None,
        ["dataset.label_values={0: 0, 1: 1}"],
        ("label_values has no value for class 2",),
    ),
    "colours": (
        first(COLOURS),
        [],
        ("{labels}/1.png is an RGB file", "(128, 0, 0) in 1,024 pixels", "number of the class"),
    ),
    "grey colours": (
        first(np.stack([LABELS] * 3, axis=2)),
        [],
        ("{labels}/1.png is an RGB file", "its colour channels are equal", "save that one alone"),
    ),
    "palette": (
        palette,
        [],
        ("{labels}/1.png is a palette file", "0, 1, 2 of its palette",
         "set dataset.accept_palette=True"),
    ),
    "jpeg": (jpeg, [], ("{labels}/1.jpg is a JPEG file", "changes labels", "as PNG")),
    "floats": (
        lambda folders: (
            folders.first.unlink(),
            write_label(folders.first.with_suffix(".tif"), LABELS.astype(np.float32)),
        ),
        [],
        ("{labels}/1.tif holds floating-point numbers",),
    ),
    "size": (
        first(LABELS[:40]),
        [],
        ("{labels}/1.png is 64x40 pixels, but its image {images}/1.jpg 64x48", "the same size"),
    ),
    "swapped": (
        first(LABELS.T.copy()),
        [],
        ("{labels}/1.png is 48x64 pixels", "64x48, width and height swapped"),
    ),
    "turned": (turned, [], ("{labels}/1.png is 64x48 pixels", "48x64 once its EXIF orientation")),
    "no label": (
        lambda folders: folders.first.unlink(),
        [],
        ("{images}/1.jpg has no label image ({labels}/1.png does not exist)", "add it"),
    ),
    "other case": (
        lambda folders: (folders.first.unlink(), write_label(folders.labels() / "1.PNG"),
                         write_image(folders.images() / "a.jpg"),
                         write_label(folders.labels() / "A.png")),
        [],
        ("{images}/a.jpg has no label image", "A.png, so correct upper and lower case"),
    ),
    "other names": (masks, [], ("none of the 2 images", "set label_suffix=_mask.png")),
    "two of a name": (
        lambda folders: write_image(folders.images() / "1.png"),
        [],
        ("{images}/1.jpg and {images}/1.png differ in their suffix alone", "remove one"),
    ),
    "no images": (
        lambda folders: [path.unlink() for path in folders.images().iterdir()],
        [],
        ("the image folder {images} has no images", "it is empty"),
    ),
    "no labels": (
        lambda folders: [path.unlink() for path in folders.labels().iterdir()],
        [],
        ("the label folder {labels} has no label images",),
    ),
    "no image folder": (
        lambda folders: shutil.rmtree(folders.images()),
        [],
        ("the image folder {images} does not exist", "relative paths start at"),
    ),
    "no label folder": (
        lambda folders: shutil.rmtree(folders.labels()),
        [],
        ("the label folder {labels} does not exist", "relative paths start at"),
    ),
    "one folder": (
        None,
        ["dataset.train_labels={images}"],
        ("{images} is the folder of both images and labels", "image_suffix and label_suffix"),
    ),
    "no list": (
        None,
        ["dataset.train_list={labels}/gone.txt"],
        ("the list of images {labels}/gone.txt cannot be read (No such file",),
    ),
    "empty label": (
        lambda folders: folders.first.write_bytes(b""),
        [],
        ("the label file {labels}/1.png is empty (0 bytes)", "copy it again"),
    ),
    "empty image": (
        lambda folders: folders.first_image.write_bytes(b""),
        [],
        ("{images}/1.jpg is empty (0 bytes)", "copy or download it again"),
    ),
}  # fmt: skip


def places(folders) -> dict[str, Path]:
    return {
        "classes": folders.classes,
        "labels": folders.labels(),
        "images": folders.images(),
    }


def settle(overrides, folders) -> list[str]:
    for name, path in places(folders).items():
        overrides = [text.replace(f"{{{name}}}", str(path)) for text in overrides]
    return overrides


@pytest.mark.parametrize("name", BEFORE)
def test_said_before_training(folders, refused, name):
    change, overrides, essentials = BEFORE[name]
    if change is not None:
        change(folders)
    sentence = refused(*settle(overrides, folders))
    assert_says(sentence, essentials, **places(folders))


OUTSIDE = LABELS.copy()
OUTSIDE[0, :5] = 7


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def all_outside(folders) -> None:
    for path in folders.labels().iterdir():
        write_label(path, LABELS + 1)


# The same where a file must be decoded to be known as bad.
WHEN_READ = {
    "out of range": (
        first(OUTSIDE),
        [],
        ("image 1: {labels}/1.png has a label out of range: 7 in 5 pixels", "0 to 2 are classes",
         "correct the labels"),
    ),
    "counted from one": (
        first(LABELS + 1),
        [],
        ("{labels}/1.png has a label out of range: 3 in 1,024 pixels", "reduce_zero_label=True"),
    ),
    "16 bits": (
        first(LABELS.astype(np.uint16) + 300),
        [],
        ("labels out of range: 300 in 1,024 pixels, 301 in 1,024 pixels, 302",),
    ),
    "cut label": (
        lambda folders: (write_label(folders.first, NOISE), cut(folders.first, 0.6)),
        [],
        ("image 1: the label file {labels}/1.png is truncated", "copy it again"),
    ),
    "cut image": (
        lambda folders: cut(folders.first_image, 0.7),
        [],
        ("image 1: {images}/1.jpg is truncated", "copy or download it again"),
    ),
    "deep image": (
        lambda folders: Image.fromarray(np.full((48, 64), 9999, np.uint16)).save(
            folders.first_image, format="PNG"
        ),
        [],
        ("image 1: {images}/1.jpg is an image of 16 or 32 bits", "convert it to 8 bits"),
    ),
    "in a worker": (
        first(OUTSIDE),
        ["dataloader.train.num_workers=1"],
        ("image 1: {labels}/1.png has a label out of range",),
    ),
    "more than allowed": (
        all_outside,
        ["dataloader.train.max_bad_images=1"],
        ("More than dataloader.train.max_bad_images=1 images are bad", "a label out of range"),
    ),
    "a bad header among those allowed": (
        lambda folders: (all_outside(folders), first(COLOURS)(folders)),
        ["dataloader.train.max_bad_images=1"],
        ("More than dataloader.train.max_bad_images=1 images are bad",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WHEN_READ)
def test_said_when_it_is_read(folders, refused, name):
    change, overrides, essentials = WHEN_READ[name]
    change(folders)
    sentence = refused(*overrides, before_training=False)
    assert_says(sentence, essentials, **places(folders))


def test_a_test_set_is_refused_too(folders, refused):
    write_label(folders.labels("test") / "1.png", COLOURS)
    sentence = refused()
    assert_says(sentence, ("{path} is an RGB file",), path=folders.labels("test") / "1.png")


def ignored(folders) -> None:
    for split in ("train", "test"):
        for path in folders.labels(split).iterdir():
            write_label(path, np.full((48, 64), 255, dtype=np.uint8))


def tiny(folders) -> None:
    write_image(folders.first_image, (1, 1))
    write_label(folders.first, np.zeros((1, 1), dtype=np.uint8))


ODD = {
    "ignored pixels only": (ignored, []),
    "one pixel": (tiny, []),
    "palette": (palette, ["dataset.accept_palette=True"]),
    "16 bits": (first(LABELS.astype(np.uint16)), []),
    "one bit": (first(LABELS > 1), []),
    "zero ignored": (None, ["dataset.reduce_zero_label=True"]),
    "without names": (None, ["dataset.classes=null", "dataset.num_classes=3"]),
    "other values": (
        all_outside,
        ["dataset.label_values={0: 0, 1: 0, 2: 1, 3: 2}", "dataset.num_classes=3"],
    ),
    "one bad label": (first(OUTSIDE), ["dataloader.train.max_bad_images=1"]),
    "one bad header": (first(COLOURS), ["dataloader.train.max_bad_images=1"]),
    "a label more": (lambda folders: write_label(folders.labels() / "3.png"), []),
}


@pytest.mark.parametrize("name", ODD)
def test_trained_on(folders, trained, name):
    change, overrides = ODD[name]
    if change is not None:
        change(folders)
    log = trained(*overrides)
    if "bad" in name:
        assert "Left out bad image 1 of at most 1" in log
    if name == "a label more":
        assert "3.png has no image of the same name" in log
    if name == "ignored pixels only":
        assert "nan" not in log.split("loss_sem_seg")[1][:30]
