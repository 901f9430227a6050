#!/usr/bin/env python3
"""Draw the predictions of a detector or a semantic segmenter on images or on a video.

    tools/demo.py --config-file FILE --weights FILE --input PATHS --output DIR [key=value ...]
    tools/demo.py --config-file FILE --weights FILE --video-input FILE --output FILE [key=value ...]

Images: writes one PNG for each, and predictions.json. Images that cannot be read are skipped, each
with a sentence; the exit status is then 1.

A video: writes a video (.mp4, .mov or .mkv) with the times of the original's frames and without
its sound; with --predictions, also a json (image_id counts the frames from 1, time is in seconds).
Of a video that is damaged further on, the frames before that; the exit status is then 1.

Of a detector, the json is in COCO's results format (image_id counts the images from 1). Of a
semantic segmenter, it lists the classes of each image with their pixels and shares; the pictures
have a legend, and labels/NAME.png holds the class number of each pixel of the image.
"""

import argparse
import sys
from pathlib import Path

from iwin_d2 import Predictor
from iwin_d2.engine.cli import count, make_output_dir, run_tool, score, start_logs
from iwin_d2.engine.predict import (
    LABELS,
    Summary,
    check_no_input_overwritten,
    find_images,
    predict_files,
    predict_video,
    video_output,
)
from iwin_d2.engine.segment_drawing import OPACITY
from iwin_d2.engine.video import VideoReader
from iwin_d2.errors import ConfigError


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
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", nargs="+", metavar="PATH", help="image files, folders")
    source.add_argument("--video-input", metavar="FILE", help="a video file")
    parser.add_argument(
        "--output",
        required=True,
        metavar="PATH",
        help="a folder; for a video, the file to write or a folder for it",
    )
    parser.add_argument("--predictions", metavar="FILE", help="of a video: the json to write")
    parser.add_argument(
        "--confidence-threshold", type=score, metavar="SCORE", help="of detectors (0.5)"
    )
    parser.add_argument(
        "--opacity",
        type=score,
        metavar="SHARE",
        help=f"of segmenters' colours, 0 for contours alone, 1 for no image ({OPACITY:g})",
    )
    parser.add_argument("--device", help="cpu or cuda; the config's if not given")
    parser.add_argument(
        "--batch-size",
        type=count(1),
        default=1,
        metavar="N",
        help="images in one pass of the model (1); those of equal size only, so predictions do "
        "not change",
    )
    parser.add_argument(
        "--workers",
        type=count(0),
        default=2,
        metavar="N",
        help="threads that read images, and as many that draw (2)",
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision (bfloat16)")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="config overrides")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return the exit status.

    Raises:
        UserError: for everything that the person can put right.
    """
    args = parse_args(argv)
    summary = _on_video(args) if args.video_input else _on_images(args)
    return 1 if summary.problems else 0


def _on_images(args: argparse.Namespace) -> Summary:
    if args.predictions:
        raise ConfigError("--predictions is for --video-input; images get predictions.json.")
    # After --input, overrides look like inputs: key=value that is no file is one.
    overrides = [text for text in args.input if "=" in text and not Path(text).exists()]
    paths = find_images([text for text in args.input if text not in overrides])
    output = Path(args.output)
    make_output_dir(args.output, setting="--output")
    check_no_input_overwritten(paths, output)
    summary = predict_files(_predictor(args, overrides), paths, output, **_settings(args))
    for sentence in summary.problems:
        print(f"Skipped: {sentence}", file=sys.stderr)
    print(
        f"{_counts(summary, 'images')} ({len(summary.problems)} skipped), "
        f"{summary.speed:.2f} images/s, drawn in {output}, "
        + (f"labelled in {output / LABELS}, " if summary.segmented else "")
        + f"listed in {output / 'predictions.json'}"
    )
    return summary


def _on_video(args: argparse.Namespace) -> Summary:
    source = Path(args.video_input)
    with VideoReader(source):  # before the model is built, which takes longer
        pass
    output = video_output(source, Path(args.output))
    results = Path(args.predictions) if args.predictions else None
    for path, setting in ((output, "--output"), (results, "--predictions")):
        if path is not None:
            make_output_dir(str(path.parent), setting)
    predictor = _predictor(args, [])
    summary = predict_video(predictor, source, output, results_file=results, **_settings(args))
    for sentence in summary.problems:
        print(
            f"{sentence} {output} holds the {summary.images} frames before that.", file=sys.stderr
        )
    print(
        f"{_counts(summary, 'frames')}, {summary.speed:.2f} frames/s, drawn in {output}"
        + (f", listed in {results}" if results else "")
    )
    return summary


def _counts(summary: Summary, noun: str) -> str:
    if summary.segmented:
        return f"{summary.images} {noun} segmented"
    return f"{summary.predictions} predictions on {summary.images} {noun}"


def _predictor(args: argparse.Namespace, overrides: list[str]) -> Predictor:
    start_logs(None)
    return Predictor(
        args.config_file,
        args.weights or None,
        overrides + args.opts,
        device=args.device,
        amp=args.amp,
    )


def _settings(args: argparse.Namespace) -> dict:
    return {
        "threshold": args.confidence_threshold,
        "opacity": args.opacity,
        "batch_size": args.batch_size,
        "workers": args.workers,
    }


if __name__ == "__main__":
    sys.exit(run_tool(main))
