#!/usr/bin/env python3
"""Check a data set in COCO format, json and images, and list everything that is wrong with it.

tools/check_dataset.py annotations.json images/ --train-json train.json

Errors keep training or evaluation from using the data set, and make the exit status 1; warnings
and notes leave it 0. docs/datasets.md explains the kinds of findings.
"""

import argparse
import contextlib
import json
import os
import sys
import time
import warnings

from iwin_d2.data.check_report import Findings, describe_findings, describe_summary, summarise
from iwin_d2.data.coco import check_same_classes
from iwin_d2.data.coco_check import find_problems, read_coco_json
from iwin_d2.data.memory import paused_gc
from iwin_d2.data.problems import Problem
from iwin_d2.engine.cli import run_tool
from iwin_d2.errors import ConfigError, DataError
from iwin_d2.files import atomic_write

_LOG_PERIOD = 30  # seconds between lines on the progress in a log file


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("json", metavar="JSON", help="annotations in COCO format")
    parser.add_argument("images", metavar="IMAGES", help="the folder its file names start from")
    parser.add_argument(
        "--no-decode",
        dest="check_files",
        action="store_const",
        const="exists",
        default="open",
        help="look for the image files, but do not read them",
    )
    parser.add_argument(
        "--no-images",
        dest="check_files",
        action="store_const",
        const=None,
        help="look at the json alone",
    )
    parser.add_argument("--train-json", metavar="FILE", help="it must have the same classes")
    parser.add_argument(
        "--allow-empty", action="store_true", help="a json without objects is fine: only images"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=min(8, os.cpu_count() or 1),
        help="threads that read images (%(default)s here)",
    )
    parser.add_argument(
        "--show", type=int, default=5, metavar="N", help="findings of a kind in full (%(default)s)"
    )
    parser.add_argument("--all", action="store_true", help="show all findings in full")
    parser.add_argument("--json", dest="output", metavar="FILE", help="write all findings as json")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Check, print the report and return the exit status.

    Raises:
        UserError: for everything on the command line that the person can put right.
    """
    args = parse_args(argv)
    if args.output and not os.path.isdir(os.path.dirname(os.path.abspath(args.output))):
        raise ConfigError(f"the folder of --json {args.output} does not exist: create it first.")
    sys.stdout.reconfigure(errors="backslashreplace")  # names may have what the terminal has not
    limit = None if args.all else max(0, args.show)
    findings = Findings(None if args.output else limit)
    with paused_gc():
        summary = check(args, findings)
    if summary:
        print("\n".join([args.json, *describe_summary(summary, args.all), ""]))
    print("\n".join(describe_findings(findings, limit, args.json)))
    if args.output:
        with atomic_write(args.output, "w") as file:
            report = {"json": args.json, "images": args.images, "summary": summary}
            json.dump({**report, "problems": findings.as_json()}, file, indent=1)
        print(f"All findings: {args.output}")
    return 1 if findings.total("error") else 0


def check(args: argparse.Namespace, findings: Findings) -> dict:
    """Collect the findings; return the summary of the data set, {} where there is none to read."""
    try:
        data = read_coco_json(args.json)
    except DataError as error:
        findings.add([Problem("file", str(error))])
        return {}
    with warnings.catch_warnings(), show_progress() as progress:
        warnings.simplefilter("ignore")  # Pillow's, which do not name the file
        findings.add(
            find_problems(
                data,
                args.json,
                args.images,
                check_files=args.check_files,
                require_objects=not args.allow_empty,
                workers=args.workers,
                progress=progress,
            )
        )
    if args.train_json:
        try:
            check_same_classes(args.train_json, args.json)
        except DataError as error:
            findings.add([Problem("classes", str(error))])
    return summarise(data) if isinstance(data, dict) else {}


@contextlib.contextmanager
def show_progress():
    """Yield what says on stderr how many images have been read: on a terminal in one line."""
    terminal = sys.stderr.isatty()
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        text = f"read {done:,} of {total:,} images"
        if terminal:
            print(f"\r{text}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - last > _LOG_PERIOD:
            last = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    yield show
    if terminal:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(run_tool(main))
