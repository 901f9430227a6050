#!/usr/bin/env python3
"""Check a data set, files and annotations, and list everything that is wrong with it.

tools/check_dataset.py annotations.json images/ --train-json train.json
tools/check_dataset.py images/ labels/ --classes classes.txt --reduce-zero-label
tools/check_dataset.py train.txt videos/ --videos --classes classes.txt --decode
tools/check_dataset.py train/ val/ --class-folders

The first form is for objects, in COCO format, the second for label images of semantic segmentation,
the third for lists of videos, the fourth for images in folders, one for each class, to train on
and, if given, to test on.
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

from iwin_d2.config_overrides import parse_value
from iwin_d2.data.check_report import Findings, describe_findings, describe_summary, summarise
from iwin_d2.data.class_file import read_class_file, settle_names
from iwin_d2.data.classification.check import ClassFolderCheck, describe_class_folder_summary
from iwin_d2.data.coco import check_same_classes
from iwin_d2.data.coco_check import find_problems, read_coco_json
from iwin_d2.data.memory import paused_gc
from iwin_d2.data.problems import Problem
from iwin_d2.data.semantic_segmentation.check import FolderCheck
from iwin_d2.data.semantic_segmentation.label_format import IGNORE_VALUE, LabelFormat
from iwin_d2.data.semantic_segmentation.label_summary import describe_label_summary
from iwin_d2.data.semantic_segmentation.pairs import Folders
from iwin_d2.data.video.check import VideoCheck, describe_video_summary
from iwin_d2.engine.cli import run_tool
from iwin_d2.errors import ConfigError, DataError
from iwin_d2.files import atomic_write

_LOG_PERIOD = 30  # seconds between lines on the progress in a log file


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source",
        metavar="JSON|IMAGES|LIST|FOLDER",
        help="annotations in COCO format, a folder of images, a list of videos, or a folder of "
        "class folders",
    )
    parser.add_argument(
        "folder",
        nargs="?",
        metavar="IMAGES|LABELS|VIDEOS|FOLDER",
        help="the folder that the json's or the list's names start from, that of label images, or "
        "class folders to test on",
    )
    parser.add_argument(
        "--no-decode",
        dest="check_files",
        action="store_const",
        const="exists",
        default="open",
        help="look for the files (of label images, at their headers), but do not decode them",
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
    videos = parser.add_argument_group("lists of videos")
    videos.add_argument("--videos", action="store_true", help="the source is a list of videos")
    videos.add_argument(
        "--decode",
        dest="check_files",
        action="store_const",
        const="decode",
        help="decode them from beginning to end, too, not just find their frames",
    )
    parser.add_argument(
        "--class-folders",
        action="store_true",
        help="the source holds a folder of images for each class",
    )
    add_label_arguments(parser.add_argument_group("label images, as of register_folder"))
    args = parser.parse_args(argv)
    if args.folder is None and not args.class_folders:
        parser.error("the following arguments are required: IMAGES|LABELS|VIDEOS")
    return args


def add_label_arguments(group) -> None:
    """Add what says what label images mean."""
    group.add_argument("--classes", metavar="FILE", help="class names, one a line")
    group.add_argument("--num-classes", type=int, metavar="N", help="where there is no class file")
    group.add_argument(
        "--reduce-zero-label", action="store_true", help="0 is no class, 1 is the first"
    )
    group.add_argument(
        "--ignore-value", type=int, default=IGNORE_VALUE, metavar="N", help="(%(default)s)"
    )
    group.add_argument(
        "--label-values", metavar="MAP", help='value in the files to class: "{0: 255, 7: 0, 8: 1}"'
    )
    group.add_argument(
        "--accept-palette", action="store_true", help="numbers of colours are the classes"
    )
    group.add_argument("--image-suffix", metavar="TEXT", help="what names of images end in")
    group.add_argument("--label-suffix", metavar="TEXT", help="what names of labels end in")
    group.add_argument(
        "--list-file", metavar="FILE", help="names of the images to take, one a line"
    )
    group.add_argument(
        "--crop",
        type=int,
        nargs=2,
        default=(512, 512),
        metavar=("HEIGHT", "WIDTH"),
        help="of the training: smaller images are noted (512 512)",
    )


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
    with paused_gc(), warnings.catch_warnings(), show_progress() as progress:
        warnings.simplefilter("ignore")  # Pillow's, which do not name the file
        if args.class_folders:
            sources = {"train": args.source, "test": args.folder}
            summary = check_class_folders(args, findings, progress)
            describe = describe_class_folder_summary
        elif args.videos:
            sources = {"list": args.source, "videos": args.folder, "classes": args.classes}
            summary, describe = check_videos(args, findings, progress), describe_video_summary
        elif is_label_check(args):
            sources = {"images": args.source, "labels": args.folder, "classes": args.classes}
            summary, describe = check_labels(args, findings, progress), describe_label_summary
        else:
            sources = {"json": args.source, "images": args.folder}
            summary, describe = check_coco(args, findings, progress), describe_summary
    if summary:
        print("\n".join([args.source, *describe(summary, args.all), ""]))
    print("\n".join(describe_findings(findings, limit, args.source)))
    if args.output:
        with atomic_write(args.output, "w") as file:
            report = {**sources, "summary": summary, "problems": findings.as_json()}
            json.dump(report, file, indent=1)
        print(f"All findings: {args.output}")
    return 1 if findings.total("error") else 0


def is_label_check(args: argparse.Namespace) -> bool:
    """Whether label images are to be checked, and not a json.

    Raises:
        ConfigError: flags are missing, or are for the other kind of data set.
    """
    if args.check_files == "decode":
        raise ConfigError("--decode is for lists of videos: give --videos, too, or leave it out.")
    if args.classes is None and args.num_classes is None:
        if os.path.isdir(args.source) and not os.path.isfile(args.folder):
            raise ConfigError(
                f"{args.source} is a folder: to check its images and their label images, give the "
                "classes, too (--classes FILE, or --num-classes N); to check images in a folder "
                "for each class, --class-folders."
            )
        return False
    if args.train_json or args.allow_empty or args.check_files is None:
        raise ConfigError(
            "--train-json, --allow-empty and --no-images are for COCO data sets, --classes and "
            "--num-classes for label images: leave one of both out."
        )
    return True


def check_coco(args: argparse.Namespace, findings: Findings, progress) -> dict:
    """Collect the findings; return the summary of the data set, {} where there is none to read."""
    try:
        data = read_coco_json(args.source)
    except DataError as error:
        findings.add([Problem("file", str(error))])
        return {}
    findings.add(
        find_problems(
            data,
            args.source,
            args.folder,
            check_files=args.check_files,
            require_objects=not args.allow_empty,
            workers=args.workers,
            progress=progress,
        )
    )
    if args.train_json:
        try:
            check_same_classes(args.train_json, args.source)
        except DataError as error:
            findings.add([Problem("classes", str(error))])
    return summarise(data) if isinstance(data, dict) else {}


def check_labels(args: argparse.Namespace, findings: Findings, progress) -> dict:
    """Collect the findings in images and label images; return the summary."""
    names, count = read_names(args, findings)
    values = None if args.label_values is None else parse_value(args.label_values)
    if not (values is None or isinstance(values, dict)):
        raise ConfigError(
            f"--label-values {args.label_values} is no mapping like {{0: 255, 7: 0}}."
        )
    form = LabelFormat(
        count, args.ignore_value, args.reduce_zero_label, values, args.accept_palette
    )
    folders = Folders(
        args.source, args.folder, args.image_suffix, args.label_suffix, args.list_file
    )
    check = FolderCheck(folders, form, names, tuple(args.crop))
    findings.add(check.problems(args.check_files == "open", args.workers, progress))
    return check.summary.as_json() if check.summary.images else {}


def check_videos(args: argparse.Namespace, findings: Findings, progress) -> dict:
    """Collect the findings in a list of videos and in the videos; return the summary."""
    if args.train_json or args.allow_empty or args.check_files is None:
        raise ConfigError(
            "--train-json, --allow-empty and --no-images are for COCO data sets, --videos is for "
            "lists of videos: leave one of both out."
        )
    check = VideoCheck(args.source, args.folder, args.classes, args.num_classes)
    findings.add(check.problems(args.check_files, args.workers, progress))
    return check.summary


def check_class_folders(args: argparse.Namespace, findings: Findings, progress) -> dict:
    """Collect the findings in folders of images, one for each class; return the summary."""
    others = {
        "--videos": args.videos,
        "--train-json": args.train_json,
        "--allow-empty": args.allow_empty,
        "--no-images": args.check_files is None,
        "--decode": args.check_files == "decode",
        "--classes": args.classes,
        "--num-classes": args.num_classes,
    }
    given = [flag for flag, value in others.items() if value]
    if given:
        raise ConfigError(
            f"{given[0]} is for other data sets, --class-folders for images in a folder for each "
            "class: leave one of both out."
        )
    check = ClassFolderCheck(args.source, args.folder)
    findings.add(check.problems(args.check_files == "open", args.workers, progress))
    return check.summary if check.summary["images"] else {}


def read_names(args: argparse.Namespace, findings: Findings) -> tuple[list[str], int | None]:
    """The names of the classes, and their number; None where the class file does not tell it."""
    try:
        if args.classes is not None:
            names, problems = read_class_file(args.classes)
            findings.add(Problem("file", f"{problem}.") for problem in problems)
            if problems:
                return names, len(names) or None
        names = settle_names(args.classes, args.num_classes)
    except DataError as error:
        findings.add([Problem("file", str(error))])
        return [], None
    return list(names), len(names)


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
