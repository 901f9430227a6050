#!/usr/bin/env python3
"""A main job in one command: generate images, train a model on them, evaluate it, draw.

    tools/quickstart.py [detection|segmentation] [key=value ...]

Overrides are those of projects/cascade_mask_rcnn/configs/quickstart.py, a detector of five million
parameters (what `make quickstart` runs), or of projects/semantic_segmentation/configs/quickstart.py
(`make quickstart-segmentation`); both learn from scratch, on a CPU.
"""

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path

import lazyconfig_train_net
import visualize

from iwin_d2.data.segmentation_shapes import generate_segmentation_dataset
from iwin_d2.data.shapes import generate_shapes_dataset
from iwin_d2.engine.cli import run_tool
from iwin_d2.engine.detection import load_config
from iwin_d2.errors import DataError

PROJECTS = Path(__file__).resolve().parents[1] / "projects"


def main(argv: list[str] | None = None) -> None:
    """Run all steps.

    Raises:
        UserError: for everything that the person can put right.
    """
    overrides = list(sys.argv[1:] if argv is None else argv)
    task = overrides.pop(0) if overrides and overrides[0] in TASKS else "detection"
    TASKS[task](overrides)


def detection(overrides: list[str]) -> None:
    """Boxes and masks."""
    config = str(PROJECTS / "cascade_mask_rcnn/configs/quickstart.py")
    cfg = load_config(config, overrides)
    data, output = Path(cfg.dataset.train_json).parents[1], Path(cfg.train.output_dir)
    predictions = output / "inference" / "coco_instances_results.json"
    start = time.monotonic()
    generate(data, generate_shapes_dataset)
    results = train_and_draw(config, overrides, output, predictions)
    lines = []
    for kind, name in (("bbox", "boxes"), ("segm", "masks")):
        found = results.get(kind, {})
        lines.append(f"{name}: AP50 {found.get('AP50', 0):.1f}, AP {found.get('AP', 0):.1f}")
    report(start, lines, data, output, predictions)


def segmentation(overrides: list[str]) -> None:
    """A class for every pixel."""
    config = str(PROJECTS / "semantic_segmentation/configs/quickstart.py")
    cfg = load_config(config, overrides)
    data, output = Path(cfg.dataset.classes).parent, Path(cfg.train.output_dir)
    predictions = output / "inference" / "labels"
    start = time.monotonic()
    size = {"num_train": 800, "num_val": 100, "image_size": (80, 80)}
    generate(data, functools.partial(generate_segmentation_dataset, **size))
    found = train_and_draw(config, overrides, output, predictions).get("sem_seg", {})
    lines = [f"mIoU {found.get('mIoU', 0):.1f}, pixel accuracy {found.get('pACC', 0):.1f}"]
    report(start, lines, data, output, predictions)


TASKS = {"detection": detection, "segmentation": segmentation}


def generate(folder: Path, make: Callable) -> None:
    """Make a data set, or reuse it."""
    try:
        make(folder)
    except DataError:  # shapes of an earlier version; the folder is this command's own
        make(folder, force=True)


def train_and_draw(config: str, overrides: list[str], output: Path, predictions: Path) -> dict:
    """Train, evaluate and draw what `predictions` holds; return the evaluation's results."""
    results = lazyconfig_train_net.main(["--config-file", config, *overrides])
    arguments = ["--config-file", config, "--results", str(predictions)]
    picture = str(output / "predictions.png")
    visualize.main(["predictions", *arguments, "--output", picture, *overrides])
    return results


def report(start: float, lines: list[str], data: Path, output: Path, predictions: Path) -> None:
    """Print the results and where everything lies; `start` is when the work began."""
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    print(f"\nDone in {minutes} min {seconds} s. On the held-out images:")
    print(*(f"  {line}" for line in lines), sep="\n")
    rows = {
        "data set": data,
        "weights": output / "model_final.pth",
        "config as run": output / "config.yaml",
        "log, metrics": f"{output / 'log.txt'}, {output / 'metrics.json'}",
        "predictions": predictions,
        "drawn beside the truth": output / "predictions.png",
    }
    print("Where everything lies:")
    for name, path in rows.items():
        print(f"  {name + ':':24}{path}")


if __name__ == "__main__":
    sys.exit(run_tool(main))
