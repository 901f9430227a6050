"""What the corpus of bad inputs shares: tools run as from a command line, and small data sets."""

import functools
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "projects" / "cascade_mask_rcnn" / "configs"
TINY = Path(__file__).parent / "tiny_config.py"


@functools.cache
def load_tool(name: str) -> Callable:
    """The main function of a program in tools/."""
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@dataclass
class Coco:
    """A data set in COCO format: two training images with two objects each, one image to test."""

    root: Path

    def __post_init__(self):
        self.train_json, self.test_json = self.root / "train.json", self.root / "test.json"
        self.train_images, self.test_images = self.root / "train", self.root / "test"
        self.output = self.root / "output"
        for json_file, folder, count in (
            (self.train_json, self.train_images, 2),
            (self.test_json, self.test_images, 1),
        ):
            folder.mkdir(parents=True)
            names = [f"{number}.jpg" for number in range(1, count + 1)]
            for name in names:
                write_image(folder / name)
            json_file.write_text(json.dumps(coco(names)))

    def edit(self, change: Callable[[dict], object], json_file: Path | None = None) -> None:
        """Change the parsed training json, or another one."""
        json_file = json_file or self.train_json
        content = json.loads(json_file.read_text())
        change(content)
        json_file.write_text(json.dumps(content))

    @property
    def first_image(self) -> Path:
        """The file of image 1 of the training set."""
        return self.train_images / "1.jpg"

    @property
    def overrides(self) -> list[str]:
        """What a config for one's own data wants to know."""
        return [
            f"dataset.train_json={self.train_json}",
            f"dataset.train_images={self.train_images}",
            f"dataset.test_json={self.test_json}",
            f"dataset.test_images={self.test_images}",
            f"train.output_dir={self.output}",
        ]


def write_image(path: Path, size: tuple[int, int] = (64, 48), mode: str = "RGB", **options) -> Path:
    """Write an image of noise, with Pillow's options for its format."""
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def coco(names: list[str]) -> dict:
    """The content of a json of images of 64 x 48 pixels with two objects each."""
    boxes = [[4, 5, 20, 10], [30.5, 20, 12, 24]]
    annotations = [
        {
            "id": 2 * image + number + 1,
            "image_id": image + 1,
            "category_id": number + 1,
            "bbox": [x, y, w, h],
            "area": w * h,
            "iscrowd": 0,
            "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
        }
        for image in range(len(names))
        for number, (x, y, w, h) in enumerate(boxes)
    ]
    return {
        "images": [
            {"id": number, "file_name": name, "width": 64, "height": 48}
            for number, name in enumerate(names, start=1)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def assert_says(sentence: str, essentials: tuple[str, ...], **places: object) -> None:
    """Assert that a sentence has all essentials, in which places may stand as {name}."""
    for essential in essentials:
        for name, place in places.items():
            essential = essential.replace(f"{{{name}}}", str(place))
        assert essential in sentence, f"{essential!r} is not in: {sentence}"
