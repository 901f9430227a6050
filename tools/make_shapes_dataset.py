#!/usr/bin/env python3
"""Generate the shapes data set: textured shapes with COCO instance annotations.

tools/make_shapes_dataset.py datasets/shapes --num-train 300 --num-val 60
"""

import argparse
import sys

from iwin_d2.data.shapes import generate_shapes_dataset
from iwin_d2.errors import UserError


def main() -> int:
    """Parse the command line, generate, print where everything lies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", help="the folder to create")
    parser.add_argument("--num-train", type=int, default=300, help="training images")
    parser.add_argument("--num-val", type=int, default=60, help="held-out images")
    parser.add_argument(
        "--image-size",
        type=int,
        nargs=2,
        default=(160, 160),
        metavar=("MIN", "MAX"),
        help="least and greatest side length in pixels",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--force", action="store_true", help="replace an earlier data set")
    args = parser.parse_args()
    try:
        paths = generate_shapes_dataset(
            args.root, args.num_train, args.num_val, tuple(args.image_size), args.seed, args.force
        )
    except UserError as error:
        print(f"error: {error.sentence}", file=sys.stderr)
        return 1
    print(f"training images:    {paths.train_images}  annotations: {paths.train_json}")
    print(f"held-out images:    {paths.val_images}  annotations: {paths.val_json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
