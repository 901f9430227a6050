"""Small images with labels, and labels of every kind that is none."""

from pathlib import Path

import numpy as np
from PIL import Image

LABELS = np.add.outer(np.arange(20), np.arange(30)).astype(np.uint8) % 5


def write_labels(path: Path, values: np.ndarray = LABELS) -> Path:
    """Write numbers as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def write_picture(path: Path, size: tuple[int, int] = (30, 20), **options) -> Path:
    """Write a picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def turned(orientation: int) -> Image.Exif:
    """EXIF data that say how a picture is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def palette_file(path: Path, values: np.ndarray = LABELS) -> Path:
    """Write numbers of colours, as Pascal VOC and labelme do."""
    image = Image.fromarray(values).convert("P")
    image = Image.frombytes("P", values.shape[::-1], values.tobytes())
    image.putpalette([channel for i in range(256) for channel in (i, 255 - i, (7 * i) % 256)])
    image.save(path)
    return path


def coloured(values: np.ndarray = LABELS) -> np.ndarray:
    """A colour for each class."""
    colours = np.random.default_rng(1).integers(0, 256, (256, 3)).astype(np.uint8)
    return colours[values]


def make_set(root: Path, names=("a", "sub/b", "c"), classes=5) -> dict[str, str]:
    """Write a data set without fault; return the arguments of `register_folder`."""
    for name in names:
        write_picture(root / "images" / f"{name}.jpg")
        write_labels(root / "labels" / f"{name}.png")
    (root / "classes.txt").write_text("".join(f"class {i}\n" for i in range(classes)))
    return {
        "images": str(root / "images"),
        "labels": str(root / "labels"),
        "classes": str(root / "classes.txt"),
    }
