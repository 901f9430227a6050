"""What the tests of tools/demo.py share: the tool with the bright-pixel detector, and its input."""

import importlib.util
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from iwin_d2.d2.data import MetadataCatalog

HERE = Path(__file__).parent
TOOL = HERE.parent.parent / "tools" / "demo.py"
CONFIG = HERE / "bright_config.py"

MetadataCatalog.get("bright_demo_test").set(
    thing_classes=["dark", "bright"], thing_dataset_id_to_contiguous_id={17: 0, 18: 1}
)


def demo(*arguments):
    """Run the tool in this process; returns its exit status."""
    spec = importlib.util.spec_from_file_location("demo", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(["--config-file", str(CONFIG), *map(str, arguments)])


def write_weights(path):
    """The detector's weights."""
    torch.save({"model": {"level": torch.tensor(150.0)}}, path)
    return path


def bright_box(size=(60, 40), box=(10, 5, 30, 25)):
    """A dark image, RGB, with a bright box."""
    image = np.full((size[1], size[0], 3), 20, dtype=np.uint8)
    x0, y0, x1, y1 = box
    image[y0:y1, x0:x1] = 250
    return image


def write_image(path, size=(60, 40), box=(10, 5, 30, 25), mode="RGB", **options):
    """A file of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(bright_box(size, box)).convert(mode).save(path, **options)
    return path
