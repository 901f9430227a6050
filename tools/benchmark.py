#!/usr/bin/env python3
"""Measure speed and memory; each table compares alternatives within one run.

tools/benchmark.py ops|backbone|video|profile|quickstart|frameworks|loading|all
"""

import argparse
import os
import sys

import torch

from iwin_d2.benchmark.cases import CASES
from iwin_d2.benchmark.machine import describe_machine, describe_rates
from iwin_d2.benchmark.rates import measure_rates
from iwin_d2.engine.cli import count, run_tool


def main() -> None:
    """Run the chosen measurements and print their tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=[*CASES, "all"])
    parser.add_argument("--rounds", type=count(1), help="timings of each; the default is its own")
    parser.add_argument("--threads", type=count(1), help="threads; PyTorch's choice by default")
    args = parser.parse_args()
    if args.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)  # of the processes that measure memory
        torch.set_num_threads(args.threads)
    rounds = {} if args.rounds is None else {"rounds": args.rounds}
    print(f"Machine: {describe_machine()}")
    print(f"Rates: {describe_rates(measure_rates())}\n", flush=True)
    for name in CASES if args.what == "all" else [args.what]:
        print("\n".join(CASES[name](**rounds)), flush=True)


if __name__ == "__main__":
    sys.exit(run_tool(main))
