#!/usr/bin/env python3
"""Draw a detector's predictions on images.

    tools/demo.py --config-file FILE --weights FILE --input PATHS --output DIR [key=value ...]

Writes one PNG for each image, and predictions.json in COCO's results format (image_id counts the
images from 1). Images that cannot be read are skipped, each with a sentence; the exit status is
then 1.
"""

import argparse
import sys
from pathlib import Path

from iwin_d2.engine.cli import make_output_dir, run_tool, start_logs
from iwin_d2.engine.detection import load_config
from iwin_d2.engine.predict import (
    Predictor,
    check_no_input_overwritten,
    find_images,
    find_metadata,
    predict_files,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument(
        "--weights", default="", metavar="FILE", help="train.init_checkpoint if not given"
    )
    parser.add_argument(
        "--input", required=True, nargs="+", metavar="PATH", help="image files, folders"
    )
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--confidence-threshold", type=float, default=0.5, metavar="SCORE")
    parser.add_argument("--device", help="cpu or cuda; the config's if not given")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="config overrides")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return the exit status.

    Raises:
        UserError: for everything that the person can put right.
    """
    args = parse_args(argv)
    # After --input, overrides look like inputs: key=value that is no file is one.
    overrides = [text for text in args.input if "=" in text and not Path(text).exists()]
    inputs = [text for text in args.input if text not in overrides]
    paths, output = find_images(inputs), Path(args.output)
    make_output_dir(args.output, setting="--output")
    check_no_input_overwritten(paths, output)
    start_logs(None)
    cfg = load_config(args.config_file, overrides + args.opts)
    predictor = Predictor(cfg, args.weights or cfg.train.init_checkpoint, args.device)
    records, skipped = predict_files(
        predictor, paths, output, find_metadata(cfg), args.confidence_threshold
    )
    for sentence in skipped:
        print(f"Skipped: {sentence}", file=sys.stderr)
    print(
        f"{len(records)} predictions on {len(paths) - len(skipped)} images "
        f"({len(skipped)} skipped), drawn in {output}, listed in {output / 'predictions.json'}"
    )
    return 1 if skipped else 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
