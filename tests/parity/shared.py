"""What the parity cases build on: the same weights, the same data, on either framework."""

import importlib.util
import json
import math
import zlib
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "projects/cascade_mask_rcnn/configs"
# Ids that neither begin at 1 nor follow each other; the json does not list them in order.
CATEGORIES = {90: "ring", 3: "disc", 17: "never seen"}


def load_tool():
    """Import tools/lazyconfig_train_net.py."""
    path = ROOT / "tools" / "lazyconfig_train_net.py"
    spec = importlib.util.spec_from_file_location("our_lazyconfig_train_net", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def generator(name):
    """A generator of random numbers that depends on a name alone."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


@torch.no_grad()
def fill(model):
    """Set every weight by its name, so that two models of the same keys are the same function."""
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        noise = torch.randn(value.shape, generator=generator(name))
        if name.endswith("running_var"):
            value.copy_(0.5 + noise.abs())
        elif value.dim() > 1:
            # Small changes of anchors and boxes keep them in the picture.
            gain = 0.1 if "deltas" in name or "bbox_pred" in name else 1.0
            value.copy_(noise * gain / math.sqrt(value[0].numel()))
        else:
            value.copy_(noise * 0.1 + (1.0 if name.endswith("weight") else 0.0))
    return model


def write_dataset(folder):
    """Write a data set of seven images with everything that COCO's json may hold; return the json.

    Crowds (RLE, compressed and not), masks of several parts and beyond the border, an image without
    annotations, one of a crowd alone, upright and lying images.
    """
    _write_images(folder / "kinds")
    random = np.random.default_rng(0)
    sizes = [(64, 80), (80, 64), (70, 90), (64, 96), (96, 64), (50, 60), (61, 83)]
    images, annotations = [], []
    for number, (height, width) in enumerate(sizes):
        image_id = 100 - 7 * number
        name = f"{image_id}.png"
        pixels = random.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((width, height), Image.BICUBIC)
        picture.save(folder / name)
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        objects = 0 if number in (2, 4) else 3 + number % 2
        for _ in range(objects):
            annotations.append(_polygon_object(random, height, width))
        if number in (3, 4):
            annotations.append(_crowd(random, height, width, compressed=number == 3))
        for annotation in annotations:
            annotation.setdefault("image_id", image_id)
    for number, annotation in enumerate(annotations, start=5):
        annotation["id"] = number
    categories = [{"id": i, "name": name} for i, name in CATEGORIES.items()]
    path = folder / "annotations.json"
    path.write_text(
        json.dumps(
            {"info": {}, "images": images, "annotations": annotations, "categories": categories}
        )
    )
    return path


def _write_images(folder):
    """Write an image in every mode that photographs come in, and in every orientation."""
    folder.mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    for mode in ("RGB", "L", "P", "1", "LA", "RGBA", "CMYK"):
        ending = "tif" if mode == "CMYK" else "png"
        Image.fromarray(pixels).convert(mode).save(folder / f"{mode}.{ending}")
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(folder / f"orientation {orientation}.png", exif=exif)


def _polygon_object(random, height, width):
    """An object of one or two star-shaped polygons; some of them leave the image."""
    parts = []
    for _ in range(random.integers(1, 3)):
        center = random.uniform((0, 0), (width, height))
        # Not crossing itself: of such a polygon, shapely would keep some parts only.
        angles = (np.arange(9) + random.uniform(0, 0.9, 9)) * (2 * np.pi / 9)
        radii = random.uniform(6, 20, 9)
        points = center + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        parts.append(points.round(2))
    corners = np.concatenate(parts)
    low, high = corners.min(axis=0), corners.max(axis=0)
    return {
        "category_id": int(random.choice([90, 3])),
        "bbox": [*low.tolist(), *(high - low).tolist()],
        "segmentation": [part.ravel().tolist() for part in parts],
        "area": float(np.prod(high - low)),
        "iscrowd": 0,
    }


def _crowd(random, height, width, compressed):
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[10:40, 20:50] = random.integers(0, 2, (30, 30))
    rle = mask_util.encode(np.asfortranarray(mask))
    if compressed:
        rle = {"size": rle["size"], "counts": rle["counts"].decode()}
    else:
        flat = mask.ravel(order="F")
        changes = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
        runs = np.diff([0, *changes, flat.size]).tolist()
        rle = {"size": [height, width], "counts": runs}
    return {
        "category_id": 3,
        "bbox": [20.0, 10.0, 30.0, 30.0],
        "segmentation": rle,
        "area": int(mask.sum()),
        "iscrowd": 1,
    }
