#!/usr/bin/env python3
"""Draw pictures of data and predictions.

    tools/visualize.py predictions --config-file FILE --results FILE --output PNG [key=value ...]

predictions: ground truth of the config's test set beside what a model predicted on it, from the
coco_instances_results.json that every evaluation writes.
"""

import argparse
import sys

from iwin_d2.d2.data import MetadataCatalog
from iwin_d2.engine.build import build
from iwin_d2.engine.cli import count, run_tool, score, start_logs
from iwin_d2.engine.detection import load_config
from iwin_d2.engine.model_check import dataset_names
from iwin_d2.errors import ConfigError
from iwin_d2.visualize import contact_sheet, load_results


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    predictions = commands.add_parser("predictions", help="ground truth beside predictions")
    predictions.add_argument("--config-file", required=True, metavar="FILE")
    predictions.add_argument("--results", required=True, metavar="FILE", help="COCO results json")
    predictions.add_argument("--output", required=True, metavar="FILE", help="the PNG to write")
    predictions.add_argument("--max-images", type=count(1), default=12, metavar="N")
    predictions.add_argument("--score-threshold", type=score, default=0.5, metavar="SCORE")
    predictions.add_argument("opts", nargs="*", metavar="key=value", help="config overrides")
    predictions.set_defaults(run=draw_predictions)
    return parser.parse_args(argv)


def draw_predictions(args: argparse.Namespace) -> None:
    """Draw the contact sheet of a config's test set and a results file."""
    cfg = load_config(args.config_file, args.opts)
    results = load_results(args.results)
    names = dataset_names(cfg, "test")
    if len(names) != 1:
        raise ConfigError(
            f"{args.config_file} names {len(names)} data sets in dataloader.test.dataset.names: "
            "one is needed to draw from."
        )
    sheet = contact_sheet(
        build(cfg, "dataloader.test.dataset"),
        results,
        MetadataCatalog.get(names[0]),
        args.output,
        max_images=args.max_images,
        score_threshold=args.score_threshold,
    )
    print(f"Ground truth and predictions of {args.config_file} are drawn in {sheet}")


def main(argv: list[str] | None = None) -> None:
    """Run the command.

    Raises:
        UserError: for everything that the person can put right.
    """
    args = parse_args(argv)
    start_logs(None)
    args.run(args)


if __name__ == "__main__":
    sys.exit(run_tool(main))
