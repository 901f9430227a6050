"""A generated data set of the size of COCO train2017, and what loading it costs."""

import multiprocessing
import time
from functools import partial
from pathlib import Path

import numpy as np

from ..d2.config import LazyCall as L
from ..d2.config import instantiate
from ..d2.data import get_detection_dataset_dicts
from ..data.coco import num_coco_classes, register_coco
from ..data.loader import build_train_loader
from ..data.memory import release_memory
from .timing import in_own_process, memory_status, memory_together

__all__ = ["measure_loading", "write_coco_size_dataset"]

NUM_IMAGES = 118_287
NUM_ANNOTATIONS = 860_001
_WIDTH, _HEIGHT = 640, 480
_NUM_CLASSES = 80
_NUM_SHAPES = 4096


def write_coco_size_dataset(
    root: Path, num_images: int = NUM_IMAGES, num_annotations: int = NUM_ANNOTATIONS
) -> tuple[Path, Path]:
    """Write annotations of COCO's size and form, and empty files in place of the images.

    Polygons have 4 to 60 points, about 22 on average, with two decimals; one object in ten consists
    of two polygons, one in eighty is a crowd in RLE. Annotations come in no order of images, and
    one image in a hundred has none.

    Returns:
        the json file and the folder of the images.
    """
    images = root / "images"
    images.mkdir(parents=True)
    names = [f"{number:012}.jpg" for number in range(1, num_images + 1)]
    for name in names:
        (images / name).touch()
    json_file = root / "instances.json"
    rng = np.random.default_rng(0)
    shapes = [_shape_text(rng) for _ in range(_NUM_SHAPES)]
    with_objects = max(1, num_images - num_images // 100)
    image_ids = rng.integers(1, with_objects + 1, num_annotations).tolist()
    classes = rng.integers(1, _NUM_CLASSES + 1, num_annotations).tolist()
    picks = rng.integers(0, _NUM_SHAPES, num_annotations).tolist()
    with open(json_file, "w") as file:
        file.write('{"info": {}, "licenses": [], "images": [')
        file.write(
            ", ".join(
                f'{{"license": 3, "file_name": "{name}", "coco_url": '
                f'"http://images.cocodataset.org/train2017/{name}", "height": {_HEIGHT}, "width": '
                f'{_WIDTH}, "date_captured": "2013-11-14 11:18:45", "id": {number}}}'
                for number, name in enumerate(names, 1)
            )
        )
        file.write('], "annotations": [')
        for number, (image_id, category_id, pick) in enumerate(zip(image_ids, classes, picks), 1):
            file.write(
                f'{", " if number > 1 else ""}{{{shapes[pick]}, "image_id": {image_id}, '
                f'"category_id": {category_id}, "id": {number}}}'
            )
        file.write('], "categories": [')
        file.write(
            ", ".join(
                f'{{"supercategory": "thing", "id": {number}, "name": "class {number}"}}'
                for number in range(1, _NUM_CLASSES + 1)
            )
        )
        file.write("]}")
    return json_file, images


def _shape_text(rng: np.random.Generator) -> str:
    """The part of an annotation that its shape decides: segmentation, area, iscrowd and bbox."""
    if rng.random() < 1 / 80:
        counts = rng.integers(1, 400, 600)
        counts[-1] += _WIDTH * _HEIGHT - counts.sum()
        text = f'{{"counts": {counts.tolist()}, "size": [{_HEIGHT}, {_WIDTH}]}}'
        area, crowd, box = int(counts[1::2].sum()), 1, [0, 0, _WIDTH, _HEIGHT]
        return f'"segmentation": {text}, "area": {area}, "iscrowd": {crowd}, "bbox": {box}'
    polygons = [_polygon(rng) for _ in range(1 + (rng.random() < 0.1))]
    points = np.concatenate(polygons)
    (left, top), (right, bottom) = points.min(0), points.max(0)
    box = [round(float(v), 2) for v in (left, top, right - left, bottom - top)]
    lists = [[round(v, 2) for v in polygon.ravel().tolist()] for polygon in polygons]
    area = round(box[2] * box[3] * 0.7, 4)
    return f'"segmentation": {lists}, "area": {area}, "iscrowd": 0, "bbox": {box}'


def _polygon(rng: np.random.Generator) -> np.ndarray:
    count = int(np.clip(rng.gamma(2.5, 9), 4, 60))
    angles = np.sort(rng.uniform(0, 2 * np.pi, count))
    size = rng.uniform(8, 200, 2)
    centre = rng.uniform(0.2, 0.8, 2) * (_WIDTH, _HEIGHT)
    radii = rng.uniform(0.6, 1, (count, 1)) * size
    points = centre + radii * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return points.clip(0, (_WIDTH, _HEIGHT)).round(2)


def measure_loading(
    json_file: Path, images: Path, num_workers: int = 4, batches: int = 2000
) -> dict[str, float]:
    """Load a data set as custom_coco.py does, in a process of its own. Linux only.

    Returns:
        seconds: until the loader stands. In MiB: peak, the process' greatest memory until then;
        together, that of the process and its workers once these have read `batches` batches of 16
        records; imported, that of a process which has only imported everything.
    """
    return in_own_process(partial(_load, str(json_file), str(images), num_workers, batches))


def _load(json_file: str, images: str, num_workers: int, batches: int) -> dict[str, float]:
    imported = memory_status("VmRSS")
    start = time.perf_counter()
    num_coco_classes(json_file)
    names = L(register_coco)(name="coco_size", json_file=json_file, image_root=images)
    loader = instantiate(
        L(build_train_loader)(
            dataset=L(get_detection_dataset_dicts)(names=names),
            mapper=_Sizes(),  # there are no pictures to read
            total_batch_size=16,
            num_workers=num_workers,
        )
    )
    release_memory()
    seconds = time.perf_counter() - start
    peak = memory_status("VmHWM")
    stream = iter(loader)
    for _ in range(batches):
        next(stream)
    workers = [child.pid for child in multiprocessing.active_children()]
    together = memory_together("self", workers)
    return {"seconds": seconds, "peak": peak, "together": together, "imported": imported}


class _Sizes:
    """A mapper that looks at a record's annotations and returns its size."""

    def __call__(self, record: dict) -> dict:
        assert all(len(annotation["bbox"]) == 4 for annotation in record["annotations"])
        return {"width": record["width"], "height": record["height"]}
