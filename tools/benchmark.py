#!/usr/bin/env python3
"""Measure speed and memory; each table compares alternatives within one run.

tools/benchmark.py ops|backbone|video|profile [--device cuda] [--dtype bfloat16]
tools/benchmark.py detector|segmentation|classifier|quickstart|frameworks|loading|loader|all
"""

import argparse
import os
import sys

import torch

from iwin_d2.benchmark.cases import CASES, ON_GPU
from iwin_d2.benchmark.machine import describe_machine, describe_rates
from iwin_d2.benchmark.rates import measure_rates
from iwin_d2.benchmark.target import DEVICES, DTYPES, Target, find_target
from iwin_d2.errors import ConfigError, UserError


def main() -> None:
    """Run the chosen measurements and print their tables in Markdown, each when it is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=[*CASES, "all"])
    parser.add_argument("--rounds", type=positive, help="timings of each; the default is its own")
    parser.add_argument("--threads", type=positive, help="threads; PyTorch's choice by default")
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default="cpu",
        help=f"cuda measures {', '.join(ON_GPU)} on a GPU, other sizes than on the processor",
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="on a GPU: bfloat16 (the default), or another; operators get such numbers, models "
        "compute with them under autocast",
    )
    args = parser.parse_args()
    target = choose_target(args)
    names = {"all": ON_GPU if target.is_gpu else tuple(CASES)}.get(args.what, (args.what,))
    if args.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)  # of the processes that measure memory
        torch.set_num_threads(args.threads)
    settings = {} if args.rounds is None else {"rounds": args.rounds}
    print(f"Machine: {describe_machine(target)}")
    print(f"Rates: {describe_rates(measure_rates(target=target))}\n", flush=True)
    for name in names:
        own = {**settings, "target": target} if name in ON_GPU else settings
        for line in CASES[name](**own):
            print(line, flush=True)


def choose_target(args: argparse.Namespace) -> Target:
    """Return the device and the dtype; refuse what cannot be measured so."""
    if args.device == "cpu":
        if args.dtype not in (None, "float32"):
            raise ConfigError(
                f"--dtype {args.dtype} goes with --device cuda: on the processor float32 is "
                "measured."
            )
        return find_target("cpu")
    if args.what not in (*ON_GPU, "all"):
        raise ConfigError(
            f"{args.what} is not measured on a GPU: take one of {', '.join(ON_GPU)}, or leave "
            "--device out."
        )
    return find_target("cuda", args.dtype)


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 1")
    return int(text)


if __name__ == "__main__":
    # Not iwin_d2.engine.cli.run_tool, with which all that trains detectors would be imported.
    try:
        main()
    except UserError as error:
        sys.exit(error.sentence)
    except KeyboardInterrupt:
        sys.exit("Interrupted.")
