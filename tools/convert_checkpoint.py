#!/usr/bin/env python3
"""Write a checkpoint's weights in this project's names, and show what became of them.

    tools/convert_checkpoint.py SRC [DST] [--part backbone | --inflate]
        [--config-file FILE [key=value ...]]

SRC is a file, an address or a published name: an ImageNet classifier, a detector of MMDetection 2,
a state dict, a file of Detectron2 or of this project. Nothing of it may be left over or missing: to
start the config's model, else of a published model of its kind. Without DST nothing is written.

Training and evaluation here need no conversion: train.init_checkpoint takes such files as they are.
"""

import argparse
import sys

from iwin_d2.checkpoint import convert_checkpoint
from iwin_d2.engine.build import build
from iwin_d2.engine.cli import run_tool, start_logs
from iwin_d2.engine.detection import load_config
from iwin_d2.errors import ConfigError


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SRC", help="a file, an address or a published name")
    parser.add_argument("destination", metavar="DST", nargs="?", help="the file to write")
    parser.add_argument(
        "--part", choices=("all", "backbone"), default="all", help="backbone: no more than that"
    )
    parser.add_argument(
        "--inflate",
        action="store_const",
        const=2,
        help="make an image model's backbone one for video, with patches of two frames",
    )
    parser.add_argument("--all", action="store_true", help="show every tensor")
    parser.add_argument("--base-url", metavar="URL", help="address or folder of published files")
    parser.add_argument("--config-file", metavar="FILE", help="whose model it is for")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="config overrides")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Convert and print the report.

    Raises:
        UserError: for everything that the person can put right.
    """
    args = parse_args(argv)
    if args.destination and "=" in args.destination:
        args.opts.insert(0, args.destination)
        args.destination = None
    if args.opts and not args.config_file:
        raise ConfigError(f"{args.opts[0]}: overrides are for a --config-file.")
    start_logs(None)
    model = None
    if args.config_file:
        model = build(load_config(args.config_file, args.opts), "model")
    report = convert_checkpoint(
        args.source,
        args.destination,
        part=args.part,
        inflate=args.inflate,
        model=model,
        base_url=args.base_url,
    )
    print(report)
    if args.all:
        print("\n".join(report.lines()))
    if args.destination:
        print(f"Written: {args.destination}")


if __name__ == "__main__":
    sys.exit(run_tool(main))
