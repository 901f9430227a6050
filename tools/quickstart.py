#!/usr/bin/env python3
"""The main job in one command: generate images, train a detector on them, evaluate it, draw.

    tools/quickstart.py [key=value ...]

Overrides are those of projects/cascade_mask_rcnn/configs/quickstart.py. What `make quickstart`
runs: five million parameters, from scratch, on a CPU.
"""

import sys
import time
from pathlib import Path

import lazyconfig_train_net
import visualize

from iwin_d2.data.shapes import generate_shapes_dataset
from iwin_d2.engine.cli import run_tool
from iwin_d2.engine.detection import load_config
from iwin_d2.errors import DataError

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "projects/cascade_mask_rcnn/configs/quickstart.py"


def generate(folder: Path) -> None:
    """Make the data set, or reuse it."""
    try:
        generate_shapes_dataset(folder)
    except DataError:  # shapes of an earlier version; the folder is this command's own
        generate_shapes_dataset(folder, force=True)


def main(argv: list[str] | None = None) -> None:
    """Run all steps.

    Raises:
        UserError: for everything that the person can put right.
    """
    overrides = sys.argv[1:] if argv is None else argv
    cfg = load_config(str(CONFIG), overrides)
    start = time.monotonic()
    generate(Path(cfg.dataset.train_json).parents[1])
    results = lazyconfig_train_net.main(["--config-file", str(CONFIG), *overrides])

    output = Path(cfg.train.output_dir)
    predictions = output / "inference" / "coco_instances_results.json"
    picture = output / "predictions.png"
    arguments = ["--config-file", str(CONFIG), "--results", str(predictions)]
    visualize.main(["predictions", *arguments, "--output", str(picture), *overrides])
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    print(f"\nDone in {minutes} min {seconds} s. On the held-out images:")
    for task, name in (("bbox", "boxes"), ("segm", "masks")):
        found = results.get(task, {})
        print(f"  {name}: AP50 {found.get('AP50', 0):.1f}, AP {found.get('AP', 0):.1f}")
    rows = {
        "data set": Path(cfg.dataset.train_json).parents[1],
        "weights": output / "model_final.pth",
        "config as run": output / "config.yaml",
        "log, metrics": f"{output / 'log.txt'}, {output / 'metrics.json'}",
        "predictions": predictions,
        "drawn beside the truth": picture,
    }
    print("Where everything lies:")
    for name, path in rows.items():
        print(f"  {name + ':':24}{path}")


if __name__ == "__main__":
    sys.exit(run_tool(main))
