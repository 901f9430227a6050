#!/usr/bin/env python3
"""Measure speed and memory; each table compares alternatives within one run.

tools/benchmark.py backbone|quickstart|frameworks|loading|all
"""

import argparse
import sys

from iwin_d2.benchmark.cases import CASES, describe_machine
from iwin_d2.engine.cli import run_tool


def main() -> None:
    """Run the chosen measurements and print their tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=[*CASES, "all"])
    args = parser.parse_args()
    print(f"Machine: {describe_machine()}\n", flush=True)
    for name in CASES if args.what == "all" else [args.what]:
        print("\n".join(CASES[name]()), flush=True)


if __name__ == "__main__":
    sys.exit(run_tool(main))
