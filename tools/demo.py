#!/usr/bin/env python3
"""Draw the predictions of a detector, a segmenter or a classifier on images or on a video.

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

Of a classifier, the classes of the highest scores are listed and drawn. A classifier of videos
classifies the whole video by the test's clips and crops (printed, and in the json of
--predictions), and the last clip of frames again and again while it runs (drawn, and in the json).
"""

import argparse
import sys
from pathlib import Path

from iwin_d2 import ClassifierPredictor, Predictor
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
from iwin_d2.engine.predict_clips import open_frames, predict_clips
from iwin_d2.engine.predictor_setup import as_config, is_classifier_config
from iwin_d2.engine.segment_drawing import OPACITY
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
    source.add_argument(
        "--video-input",
        metavar="FILE",
        help="a video file; of classifiers of videos also a folder of frames",
    )
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
    parser.add_argument(
        "--top", type=count(1), metavar="N", help="of classifiers: classes that are shown (5)"
    )
    parser.add_argument(
        "--every",
        type=count(1),
        metavar="N",
        help="of classifiers of videos: frames from one prediction to the next (a quarter of a "
        "clip)",
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
    predictor = _predictor(args, overrides)
    if args.every is not None:
        raise ConfigError("--every is for videos (--video-input): leave it out.")
    if isinstance(predictor, ClassifierPredictor) and predictor.takes_videos:
        raise ConfigError("The model classifies videos: give one with --video-input.")
    summary = predict_files(predictor, paths, output, **_settings(args))
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
    with open_frames(source):  # before the model is built, which takes longer
        pass
    output = video_output(source, Path(args.output))
    results = Path(args.predictions) if args.predictions else None
    for path, setting in ((output, "--output"), (results, "--predictions")):
        if path is not None:
            make_output_dir(str(path.parent), setting)
    predictor = _predictor(args, [])
    if isinstance(predictor, ClassifierPredictor) and predictor.takes_videos:
        summary = _on_clips(args, predictor, source, output, results)
    else:
        summary = _on_frames(args, predictor, source, output, results)
    print(
        f"{_counts(summary, 'frames')}, {summary.speed:.2f} frames/s, drawn in {output}"
        + (f", listed in {results}" if results else "")
    )
    return summary


def _on_frames(
    args: argparse.Namespace,
    predictor: Predictor | ClassifierPredictor,
    source: Path,
    output: Path,
    results: Path | None,
) -> Summary:
    """Predict each frame by itself."""
    if args.every is not None:
        raise ConfigError("--every is for classifiers of videos: leave it out.")
    if source.is_dir():
        raise ConfigError(
            f"--video-input {source} is a folder, which only classifiers of videos take for a "
            f"video: give --input {source}."
        )
    summary = predict_video(predictor, source, output, results_file=results, **_settings(args))
    for sentence in summary.problems:
        print(
            f"{sentence} {output} holds the {summary.images} frames before that.", file=sys.stderr
        )
    return summary


def _on_clips(
    args: argparse.Namespace,
    predictor: ClassifierPredictor,
    source: Path,
    output: Path,
    results: Path | None,
) -> Summary:
    """Classify the video, and its clips one after the other."""
    for value, name in (
        (args.confidence_threshold, "confidence-threshold"),
        (args.opacity, "opacity"),
    ):
        if value is not None:
            raise ConfigError(f"--{name} is not for classifiers: leave it out.")
    summary = predict_clips(
        predictor, source, output, results_file=results, every=args.every, top=args.top
    )
    for sentence in summary.problems:
        print(sentence, file=sys.stderr)
    for found in summary.whole or ():
        print(f"{100 * found.score:5.1f} %  {found.name}")
    return summary


def _counts(summary: Summary, noun: str) -> str:
    if summary.segmented:
        return f"{summary.images} {noun} segmented"
    if summary.classified and summary.predictions == summary.images:
        return f"{summary.images} {noun} classified"
    return f"{summary.predictions} predictions on {summary.images} {noun}"


def _predictor(args: argparse.Namespace, overrides: list[str]) -> Predictor | ClassifierPredictor:
    start_logs(None)
    cfg = as_config(args.config_file, overrides + args.opts)
    kind = ClassifierPredictor if is_classifier_config(cfg) else Predictor
    return kind(cfg, args.weights or None, device=args.device, amp=args.amp)


def _settings(args: argparse.Namespace) -> dict:
    return {
        "threshold": args.confidence_threshold,
        "opacity": args.opacity,
        "top": args.top,
        "batch_size": args.batch_size,
        "workers": args.workers,
    }


if __name__ == "__main__":
    sys.exit(run_tool(main))
