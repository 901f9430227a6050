#!/usr/bin/env python3
r"""Draw pictures of data and predictions.

tools/visualize.py predictions --config-file CONFIG.py \
        --results output/inference/coco_instances_results.json --output sheet.png [key=value ...]
"""

import argparse
import sys

from iwin_d2.d2.config import LazyConfig, instantiate
from iwin_d2.d2.data import MetadataCatalog
from iwin_d2.errors import UserError
from iwin_d2.visualize import contact_sheet, load_results


def draw_predictions(args: argparse.Namespace) -> None:
    """Ground truth beside predictions, for the test data set of a config."""
    cfg = LazyConfig.apply_overrides(LazyConfig.load(args.config_file), args.opts)
    results = load_results(args.results)
    dataset = cfg.dataloader.test.dataset
    name = instantiate(dataset.names)
    records = instantiate(dataset)
    sheet = contact_sheet(
        records,
        results,
        MetadataCatalog.get(name),
        args.output,
        max_images=args.max_images,
        score_threshold=args.score_threshold,
    )
    print(f"picture: {sheet}")


def main() -> int:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    predictions = commands.add_parser("predictions", help="ground truth beside predictions")
    predictions.add_argument("--config-file", required=True, metavar="FILE")
    predictions.add_argument(
        "--results", required=True, metavar="FILE", help="coco_instances_results.json"
    )
    predictions.add_argument("--output", required=True, metavar="FILE", help="the PNG to write")
    predictions.add_argument("--max-images", type=int, default=12)
    predictions.add_argument("--score-threshold", type=float, default=0.5)
    predictions.add_argument("opts", nargs="*", metavar="key=value", help="config overrides")
    predictions.set_defaults(run=draw_predictions)
    args = parser.parse_args()
    try:
        args.run(args)
    except UserError as error:
        print(f"error: {error.sentence}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
