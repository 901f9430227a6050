#!/usr/bin/env python3
"""Write a model to a file that runs without this package: torch.export (.pt2) or ONNX (.onnx).

    tools/export.py --config-file FILE --weights FILE --output FILE.onnx [key=value ...]
    tools/export.py --config-file FILE --weights FILE --output FILE.pt2 --part detector
    tools/export.py --config-file FILE --weights FILE --output FILE.onnx --part segmenter

The backbone with its FPN turns images into feature maps; a whole detector turns an image into
boxes, scores, classes and masks, a segmenter images into the scores of their pixels. Images are of
any size; docs/export.md says how to run the files.
"""

import argparse
import sys
from pathlib import Path

from iwin_d2 import Predictor
from iwin_d2.engine.cli import make_output_dir, run_tool, start_logs
from iwin_d2.engine.export import PARTS, check_export, export_detector


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file", required=True, metavar="FILE", help="a lazy config, .py or .yaml"
    )
    parser.add_argument(
        "--weights", default="", metavar="FILE", help="train.init_checkpoint if not given"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="a .pt2 or .onnx to write")
    parser.add_argument(
        "--part", choices=PARTS, default="backbone", help="backbone with FPN, or all (backbone)"
    )
    parser.add_argument("--device", default="cpu", help="that the file is for (cpu)")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="config overrides")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run the tool.

    Raises:
        UserError: for everything that the person can put right.
    """
    args = parse_args(argv)
    check_export(args.output, args.part)
    output = Path(args.output)
    make_output_dir(str(output.parent), setting="--output")
    start_logs(None)
    predictor = Predictor(args.config_file, args.weights or None, args.opts, device=args.device)
    export_detector(predictor.model, output, args.part, predictor.class_names)
    size = output.stat().st_size / 2**20
    print(f"The {args.part} is in {output} ({size:.0f} MiB); docs/export.md says how to run it.")


if __name__ == "__main__":
    sys.exit(run_tool(main))
