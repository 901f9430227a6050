#!/usr/bin/env python3
"""Generate the shapes data set: textured shapes, for one of several tasks.

tools/make_shapes_dataset.py datasets/shapes --num-train 300 --num-val 60
tools/make_shapes_dataset.py datasets/segments --task semantic_segmentation
tools/make_shapes_dataset.py datasets/classes --task image_classification --image-size 64 64
tools/make_shapes_dataset.py datasets/moving --task video_classification --image-size 96 96

For video classification they are clips of moving shapes, whose classes are ways to move.
"""

import argparse
import sys

from iwin_d2.data.classification_shapes import generate_classification_dataset
from iwin_d2.data.segmentation_shapes import generate_segmentation_dataset
from iwin_d2.data.shapes import generate_shapes_dataset
from iwin_d2.data.video.shapes import generate_moving_shapes
from iwin_d2.engine.cli import run_tool
from iwin_d2.errors import ConfigError


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", metavar="DIR", help="the folder to create")
    parser.add_argument(
        "--task",
        choices=(
            "detection",
            "semantic_segmentation",
            "image_classification",
            "video_classification",
        ),
        default="detection",
        help="what the annotations are for (%(default)s)",
    )
    parser.add_argument("--num-train", type=int, default=300, help="training images or clips")
    parser.add_argument("--num-val", type=int, default=60, help="held-out images or clips")
    parser.add_argument(
        "--image-size",
        type=int,
        nargs=2,
        default=(160, 160),
        metavar=("MIN", "MAX"),
        help="least and greatest side length in pixels; of clips, twice the same even number",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--force", action="store_true", help="replace an earlier data set")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Generate, and print where everything lies.

    Raises:
        UserError: for everything that the person can put right.
    """
    args = parse_args(argv)
    size = (args.num_train, args.num_val, tuple(args.image_size))
    if args.task == "detection":
        paths = generate_shapes_dataset(args.root, *size, args.seed, args.force)
        print(f"training: {paths.train_json}, images in {paths.train_images}")
        print(f"held out: {paths.val_json}, images in {paths.val_images}")
        return
    if args.task == "image_classification":
        folders = generate_classification_dataset(args.root, *size, args.seed, args.force)
        print(f"training: class folders in {folders.train}")
        print(f"held out: class folders in {folders.val}")
        return
    if args.task == "video_classification":
        make_clips(args)
        return
    paths = generate_segmentation_dataset(args.root, *size, args.seed, args.force)
    print(f"training: images in {paths.train_images}, labels in {paths.train_labels}")
    print(f"held out: images in {paths.val_images}, labels in {paths.val_labels}")
    print(f"classes: {paths.classes}")


def make_clips(args: argparse.Namespace) -> None:
    """Generate the clips of moving shapes."""
    side, other = args.image_size
    if side != other:
        raise ConfigError(
            f"--image-size {side} {other}: clips are square and of one size, so give one number "
            "twice."
        )
    paths = generate_moving_shapes(
        args.root, args.num_train, args.num_val, side, seed=args.seed, force=args.force
    )
    print(f"training: {paths.train_list}")
    print(f"held out: {paths.val_list}")
    print(f"paths in both start from {paths.root}; classes: {paths.classes}")


if __name__ == "__main__":
    sys.exit(run_tool(main))
