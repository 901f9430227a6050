#!/usr/bin/env python3
"""Count the parameters, multiply-adds and activations of detectors and segmenters.

    tools/analyze_model.py mask_rcnn/mask_rcnn_iwin_t_1x_coco
    tools/analyze_model.py CONFIG.py --size 640x640 --depth 4 model.roi_heads.num_classes=3
    tools/analyze_model.py mask_rcnn/mask_rcnn_iwin_t_1x_coco mask_rcnn/mask_rcnn_iwin_s_1x_coco
    tools/analyze_model.py --size 512x2048 semantic_segmentation/upernet_iwin_t_512_160k_ade20k

A model is a name of iwin_d2.model_zoo or the file of a lazy config. One is shown module by module,
several are compared, a row each. Weights are random, and all proposals and detections that a config
allows are made.
"""

import argparse
import os
import re
import sys

from torch import nn

from iwin_d2 import model_zoo
from iwin_d2.analysis import Analysis, analyze, comparison_table, module_table
from iwin_d2.engine.build import build
from iwin_d2.engine.class_names import settle_num_classes
from iwin_d2.engine.cli import count, pick_device, run_tool, start_logs
from iwin_d2.engine.detection import load_config
from iwin_d2.errors import ConfigError


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a name of the model zoo or a config's file; key=value overrides their configs",
    )
    parser.add_argument(
        "--size",
        type=size,
        default=(800, 1280),
        metavar="HEIGHTxWIDTH",
        help="of the image, in pixels (800x1280)",
    )
    parser.add_argument(
        "--depth", type=count(0), default=2, help="of the modules shown of one model (2)"
    )
    parser.add_argument("--device", default="cpu", help="where to run it (cpu)")
    args = parser.parse_intermixed_args(argv)
    args.overrides = [text for text in args.models if "=" in text and not os.path.exists(text)]
    args.models = [text for text in args.models if text not in args.overrides]
    if not args.models:
        parser.error("no model is named")
    return args


def size(text: str) -> tuple[int, int]:
    """A type of command-line arguments: height and width in pixels."""
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if found is None or "0" in (found[1], found[2]):
        raise argparse.ArgumentTypeError(f"{text} is no size such as 800x1280, height first")
    return int(found[1]), int(found[2])


def main(argv: list[str] | None = None) -> None:
    """Run the tool.

    Raises:
        UserError: for everything that the person can put right.
    """
    args = parse_args(argv)
    start_logs(None)
    device = pick_device(args.device)
    found: dict[str, Analysis] = {}
    for name in args.models:
        found[name] = analyze(build_model(name, args.overrides).to(device), args.size)
    if len(found) == 1:
        print(module_table(next(iter(found.values())), args.depth))
    else:
        print(comparison_table(found))


def build_model(name: str, overrides: list[str]) -> nn.Module:
    """Build a model with random weights.

    Args:
        name: of the model zoo, or a config's file.
        overrides: of its config.

    Raises:
        ConfigError: there is no such model, or it cannot be built.
    """
    if os.path.isfile(name):
        cfg = load_config(name, overrides)
    else:
        cfg = model_zoo.get_config(name, overrides=overrides)
    if cfg.get("model") is None:
        raise ConfigError(f"{name} has no model: give a lazy config that has one.")
    settle_num_classes(cfg)
    return build(cfg, "model")


if __name__ == "__main__":
    sys.exit(run_tool(main))
