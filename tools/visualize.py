#!/usr/bin/env python3
"""Draw pictures of data, predictions and attention.

    tools/visualize.py data --config-file FILE --output DIR [key=value ...]
    tools/visualize.py predictions --config-file FILE --results PATH --output DIR [key=value ...]
    tools/visualize.py predictions --config-file FILE --weights FILE --output DIR [key=value ...]
    tools/visualize.py attention --config-file FILE --weights FILE --image FILE --output PNG ...

data: images of the config's training set as they are annotated, and beside it as the model sees
them after augmentation.

predictions: ground truth of the config's test set beside what a model predicted on it, the worst
images first; from what an evaluation has written (the file coco_instances_results.json; of semantic
segmentation the folder labels, with dataloader.evaluator.save_labels=True), or by running a
checkpoint. With --output FILE.png, one sheet of images spread evenly over the set instead.

attention: which tokens of an image an interleaved window holds, and where one of them attends.
"""

import argparse
import sys
from pathlib import Path

from omegaconf import OmegaConf

from iwin_d2 import Predictor
from iwin_d2.d2.data import MetadataCatalog
from iwin_d2.engine.build import build
from iwin_d2.engine.cli import count, run_tool, score, start_logs
from iwin_d2.engine.detection import load_config
from iwin_d2.engine.model_check import check_num_classes, dataset_names
from iwin_d2.engine.objects import check_class_names, spread
from iwin_d2.errors import ConfigError
from iwin_d2.visualize import (
    are_labelled,
    attention_of_file,
    attention_picture,
    check_images,
    choose_records,
    contact_sheet,
    describe_attention,
    draw_data,
    draw_label_data,
    draw_worst,
    draw_worst_labels,
    label_sheet,
    load_results,
    predict_labels,
    predict_records,
    save_picture,
    saved_labels,
    stuff_classes,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_text, add, run in (
        ("data", "annotations before and after augmentation", _data_arguments, draw_samples),
        ("predictions", "ground truth beside predictions", _prediction_arguments, draw_predictions),
        ("attention", "windows and attention on an image", _attention_arguments, draw_attention),
    ):
        command = commands.add_parser(name, help=help_text)
        command.add_argument(
            "--config-file", required=True, metavar="FILE", help="a lazy config, .py or .yaml"
        )
        add(command)
        command.add_argument("opts", nargs="*", metavar="key=value", help="config overrides")
        command.set_defaults(run=run)
    return parser.parse_args(argv)


def _data_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--output", required=True, metavar="DIR", help="folder for pictures and index.html")
    text = "the part of the config's dataloader (train); val_loss is the test set with annotations"
    add("--part", default="train", metavar="NAME", help=text)
    add("--max-images", type=count(1), default=8, metavar="N", help="spread over the data set (8)")
    add("--image-ids", type=_ids, metavar="ID,ID", help="these images of the data set instead")
    add("--draws", type=count(1), default=3, metavar="N", help="augmented versions of each (3)")
    add("--seed", type=count(0), default=0, metavar="N", help="of the augmentations (0)")


def _prediction_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    source = command.add_mutually_exclusive_group(required=True)
    text = "COCO results json; of semantic segmentation, the folder of predicted label images"
    source.add_argument("--results", metavar="PATH", help=text)
    source.add_argument("--weights", metavar="FILE", help="a checkpoint to run on the test set")
    text = "folder for pictures, worst images first, index.html and index.csv; or a .png: one sheet"
    add("--output", required=True, metavar="PATH", help=text)
    add("--max-images", type=count(1), default=12, metavar="N", help="how many to draw (12)")
    add("--score-threshold", type=score, metavar="SCORE", help="of detectors (0.5)")
    text = "with --weights: run on so many images, spread evenly, instead of all"
    add("--run-on", type=count(1), metavar="N", help=text)
    add("--batch-size", type=count(1), default=1, metavar="N", help="images in one pass (1)")
    add("--workers", type=count(0), default=2, metavar="N", help="threads that read images (2)")


def _attention_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--weights", metavar="FILE", help="a checkpoint; train.init_checkpoint if not given")
    add("--image", required=True, metavar="FILE")
    add("--output", required=True, metavar="PNG", help="the picture to write")
    text = "res2, res3, res4 or res5: maps of stride 4, 8, 16, 32 (res4)"
    add("--stage", default="res4", metavar="NAME", help=text)
    add("--block", type=count(0), metavar="N", help="of the stage, from 0 (its last)")
    add("--head", type=_head, default="mean", metavar="N", help="from 0, mean (default), or all")
    text = "the pixel of the image whose token attends (the middle)"
    add("--at", type=_point, metavar="X,Y", help=text)


def _ids(text: str) -> list[str]:
    return text.split(",")


def _head(text: str) -> int | str:
    if text in ("mean", "all"):
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no number, and neither mean nor all")
    return int(text)


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no X,Y such as 320,200") from None
    return x, y


def draw_samples(args: argparse.Namespace) -> None:
    """Draw images of a data set before and after augmentation."""
    cfg = load_config(args.config_file, args.opts)
    name = _dataset_name(cfg, args.part, args.config_file)
    if OmegaConf.select(cfg, f"dataloader.{args.part}.mapper") is None:
        raise ConfigError(
            f"{args.config_file} has no dataloader.{args.part}.mapper, which prepares the images."
        )
    records = build(cfg, f"dataloader.{args.part}.dataset")
    records = choose_records(records, args.image_ids, args.max_images)
    mapper = build(cfg, f"dataloader.{args.part}.mapper")
    options = {
        "draws": args.draws,
        "seed": args.seed,
        "image_format": getattr(mapper, "image_format", "RGB"),
    }
    metadata = MetadataCatalog.get(name)
    if are_labelled(records):
        options["ignore_value"] = getattr(mapper, "ignore_value", 255)
        names = stuff_classes(metadata, args.config_file)
        index = draw_label_data(records, mapper, names, args.output, **options)
    else:
        check_class_names(metadata, args.config_file)
        index = draw_data(records, mapper, metadata.thing_classes, args.output, **options)
    print(f"{len(records)} images of {name} are drawn in {args.output}: see {index}")


def draw_predictions(args: argparse.Namespace) -> None:
    """Draw a config's test set beside predictions: the worst images, or a contact sheet."""
    cfg = load_config(args.config_file, args.opts)
    name = _dataset_name(cfg, "test", args.config_file)
    given = args.results is not None
    results = load_results(args.results) if given and not Path(args.results).is_dir() else None
    predictor = Predictor(args.config_file, args.weights, args.opts) if args.weights else None
    records = build(cfg, "dataloader.test.dataset")
    draw = _draw_labels if are_labelled(records) else _draw_objects
    if predictor is not None:
        check_num_classes(predictor.model, predictor.cfg, "test")
    drawn = draw(args, records, name, results, predictor)
    print(f"Ground truth and predictions of {args.config_file} are drawn in {drawn}")


def _draw_objects(args: argparse.Namespace, records: list, name: str, results, predictor):
    metadata = MetadataCatalog.get(name)
    if predictor is not None:
        check_class_names(metadata, args.config_file)
        records = spread(records, args.run_on) if args.run_on else records
        results = predict_records(
            predictor, records, metadata, batch_size=args.batch_size, workers=args.workers
        )
    elif results is None:
        raise ConfigError(
            f"{args.results} is a folder, but the data set {name!r} is one of objects: give the "
            "coco_instances_results.json of an evaluation."
        )
    else:
        check_images(results, records, args.results, name)
    threshold = 0.5 if args.score_threshold is None else args.score_threshold
    options = {"max_images": args.max_images, "score_threshold": threshold}
    draw = contact_sheet if _is_png(args.output) else draw_worst
    return draw(records, results, metadata, args.output, **options)


def _draw_labels(args: argparse.Namespace, records: list, name: str, results, predictor):
    if args.score_threshold is not None:
        raise ConfigError(
            f"--score-threshold is for detectors, but {name!r} is a data set of semantic "
            "segmentation: leave it out."
        )
    if results is not None:
        raise ConfigError(
            f"{args.results} holds objects, but {name!r} is a data set of semantic segmentation: "
            "give the folder labels that an evaluation has written with "
            "dataloader.evaluator.save_labels=True."
        )
    names = stuff_classes(MetadataCatalog.get(name), args.config_file)
    if predictor is not None:
        records = spread(records, args.run_on) if args.run_on else records
    if _is_png(args.output):
        records = spread(records, args.max_images)
    if predictor is not None:
        options = {"batch_size": args.batch_size, "workers": args.workers}
        predicted = predict_labels(predictor, records, **options)
    else:
        predicted = saved_labels(Path(args.results), records, len(names))
    if _is_png(args.output):
        return label_sheet(predicted, names, args.output)
    return draw_worst_labels(predicted, names, args.output, max_images=args.max_images)


def _is_png(output: str) -> bool:
    return Path(output).suffix.lower() == ".png"


def draw_attention(args: argparse.Namespace) -> None:
    """Draw an interleaved window and the attention of one of its tokens."""
    cfg = load_config(args.config_file, args.opts)
    attention, image = attention_of_file(
        cfg, args.weights, args.image, stage=args.stage, block=args.block, at=args.at
    )
    picture = save_picture(attention_picture(attention, image, args.head), args.output)
    print(*describe_attention(attention, args.head), f"Drawn in {picture}", sep="\n")


def _dataset_name(cfg, part: str, config_file: str) -> str:
    """The name of the one data set of a part of the dataloader."""
    names = dataset_names(cfg, part)
    if len(names) != 1:
        raise ConfigError(
            f"{config_file} names {len(names)} data sets in dataloader.{part}.dataset.names: "
            "one is needed to draw from."
        )
    return names[0]


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
