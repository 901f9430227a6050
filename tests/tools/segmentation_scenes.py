"""Images of sky, ground and a box, with label images: what a tiny segmenter learns in seconds."""

import numpy as np
from PIL import Image

CLASSES = ["sky", "ground", "box"]
_COLORS = np.array([[90, 150, 230], [70, 120, 50], [210, 60, 60]])


def write_scenes(folder, num_train=6, num_test=3, size=(64, 80), ignored=(), border=4, seed=0):
    """Write images, label images and a class file.

    Args:
        folder: is made.
        num_train: images to train on.
        num_test: images to evaluate on.
        size: height and width.
        ignored: numbers of the images of either part in which every pixel is ignored.
        border: columns at the left in which every pixel is ignored.
        seed: of the pictures.

    Returns:
        what the config is told of them, a list of overrides.
    """
    rng = np.random.default_rng(seed)
    for part, count in (("train", num_train), ("test", num_test)):
        for kind in ("images", "labels"):
            (folder / part / kind).mkdir(parents=True)
        for number in range(count):
            image, labels = _scene(rng, size)
            labels[:, :border] = 255
            if number in ignored:
                labels[:] = 255
            Image.fromarray(image).save(folder / part / "images" / f"{number}.png")
            Image.fromarray(labels).save(folder / part / "labels" / f"{number}.png")
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    return [
        *(
            f"dataset.{part}_{kind}={folder / part / kind}"
            for part in ("train", "test")
            for kind in ("images", "labels")
        ),
        f"dataset.classes={folder / 'classes.txt'}",
    ]


def _scene(rng, size):
    """An image uint8 [H, W, 3] and its labels uint8 [H, W]."""
    height, width = size
    labels = np.zeros(size, dtype=np.uint8)
    labels[int(height * rng.uniform(0.4, 0.6)) :] = 1
    top, left = int(rng.integers(0, height // 2)), int(rng.integers(0, width // 2))
    labels[top : top + height // 3, left : left + width // 3] = 2
    image = _COLORS[labels] + rng.normal(0, 12, (*size, 3))
    return image.clip(0, 255).astype(np.uint8), labels
