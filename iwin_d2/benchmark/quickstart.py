"""The quickstart's config and data, as the measurements use them."""

from pathlib import Path

from ..data.shapes import generate_shapes_dataset
from ..engine.detection import load_config

__all__ = ["quickstart_config"]

_CONFIG = "projects/cascade_mask_rcnn/configs/quickstart.py"


def quickstart_config():
    """Load the config, with its data set generated where it is not there yet."""
    cfg = load_config(_CONFIG, [])
    generate_shapes_dataset(Path(cfg.dataset.train_json).parents[1])
    return cfg
