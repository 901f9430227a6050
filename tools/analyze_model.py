#!/usr/bin/env python3
"""Count the parameters, multiply-adds and activations of detectors, segmenters and classifiers.

    tools/analyze_model.py mask_rcnn/mask_rcnn_iwin_t_1x_coco
    tools/analyze_model.py CONFIG.py --size 640x640 --depth 4 model.roi_heads.num_classes=3
    tools/analyze_model.py mask_rcnn/mask_rcnn_iwin_t_1x_coco mask_rcnn/mask_rcnn_iwin_s_1x_coco
    tools/analyze_model.py --size 512x2048 semantic_segmentation/upernet_iwin_t_512_160k_ade20k
    tools/analyze_model.py iwin_tiny_patch4_window7_224 iwin_small_patch4_window16_512

A model is a name of iwin_d2.model_zoo, the file of a lazy config or the name of a published
classifier of images or videos. One is shown module by module,
several are compared, a row each. Weights are random, and all proposals and detections that a config
allows are made.
"""

import argparse
import os
import re
import sys

from torch import nn

from iwin_d2 import model_zoo
from iwin_d2.analysis import (
    Analysis,
    analyze,
    analyze_classifier,
    comparison_table,
    module_table,
)
from iwin_d2.engine.build import build
from iwin_d2.engine.class_names import settle_num_classes
from iwin_d2.engine.cli import count, pick_device, run_tool, start_logs
from iwin_d2.engine.detection import load_config
from iwin_d2.errors import ConfigError
from iwin_d2.modeling import (
    IwinClassifier,
    VideoClassifier,
    iwin_classifier,
    iwin_video_classifier,
)
from iwin_d2.modeling.published import IMAGE_CLASSIFIERS, VIDEO_CLASSIFIERS

DETECTORS_SIZE = (800, 1280)
CLIPS_SIZE = (224, 224)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a name of the model zoo, a config's file (key=value overrides their configs) or "
        "the name of a published classifier",
    )
    parser.add_argument(
        "--size",
        type=size,
        metavar="HEIGHTxWIDTH",
        help="of the image, in pixels (800x1280; classifiers: what they are trained for)",
    )
    parser.add_argument("--frames", type=count(1), default=32, help="of clips (32)")
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
        model = build_model(name, args.overrides).to(device)
        found[name] = count_model(model, args.size, args.frames)
    if len(found) == 1:
        print(module_table(next(iter(found.values())), args.depth))
    else:
        print(comparison_table(found))


def count_model(model: nn.Module, size: tuple[int, int] | None, frames: int) -> Analysis:
    """Analyse a model of any task.

    Args:
        model: takes what its task takes.
        size: (height, width); None for what the task is known for.
        frames: of clips.
    """
    if isinstance(model, VideoClassifier):
        channels = model.backbone.patch_embed.proj.in_channels
        return analyze_classifier(model, size or CLIPS_SIZE, frames=frames, channels=channels)
    if isinstance(model, IwinClassifier):
        channels = model.patch_embed.proj.in_channels
        return analyze_classifier(model, size or (model.img_size,) * 2, channels=channels)
    return analyze(model, size or DETECTORS_SIZE)


def build_model(name: str, overrides: list[str]) -> nn.Module:
    """Build a model with random weights.

    Args:
        name: of the model zoo, a config's file, or of a published classifier.
        overrides: of its config.

    Raises:
        ConfigError: there is no such model, or it cannot be built.
    """
    if name in (*IMAGE_CLASSIFIERS, *VIDEO_CLASSIFIERS) and overrides:
        raise ConfigError(
            f"{overrides[0]} overrides nothing: {name} is a published classifier without a config."
        )
    if name in VIDEO_CLASSIFIERS:
        return iwin_video_classifier(name)
    if name in IMAGE_CLASSIFIERS:
        return iwin_classifier(name)
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
