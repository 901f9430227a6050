"""Bad command lines: of each program, each with one sentence."""

import os
import subprocess
import sys

import pytest
import torch
from bad_input import ROOT, TINY, assert_says, load_tool

TRAIN = ["--config-file", "{tiny}"]
DEMO = ["--config-file", "{tiny}", "--weights", "{weights}", "--output", "{output}"]
DRAW = ["predictions", "--config-file", "{tiny}", "--output", "{root}/sheet.png"]
RESULTS = ["--results", "{root}/results.json"]
ADDRESS = ("give tcp://HOST:PORT of machine 0", "auto works on one machine")

# Program and arguments ("..." stands for the overrides that name the data), and what must be said.
CASES = {
    # training
    "no config": ("lazyconfig_train_net", [], ("No config", "give --config-file FILE")),
    "flag late": ("lazyconfig_train_net", [*TRAIN, "...", "--resume"], ("--resume stands among",)),
    "no value": (
        "lazyconfig_train_net",
        [*TRAIN, "...", "train.max_iter"],
        ("'train.max_iter' is malformed", "write key=value"),
    ),
    "value apart": (
        "lazyconfig_train_net",
        [*TRAIN, "...", "train.max_iter=", "3"],
        ("'3' is malformed", "write key=value"),
    ),
    "older style": (
        "lazyconfig_train_net",
        [*TRAIN, "...", "SOLVER.MAX_ITER", "3"],
        ("'SOLVER.MAX_ITER' is malformed", "write key=value"),
    ),
    "json as config": (
        "lazyconfig_train_net",
        ["--config-file", "{json}", "..."],
        ("config file {json}", "py"),
    ),
    "nothing to evaluate": (
        "lazyconfig_train_net",
        [*TRAIN, "--eval-only", "..."],
        ("--eval-only needs weights", "set train.init_checkpoint=FILE", "--resume"),
    ),
    "nothing to resume and evaluate": (
        "lazyconfig_train_net",
        [*TRAIN, "--eval-only", "--resume", "..."],
        ("--eval-only needs weights", "set train.init_checkpoint=FILE"),
    ),
    "no gpus": (
        "lazyconfig_train_net",
        [*TRAIN, "--num-gpus", "0", "..."],
        ("--num-gpus 0", "at least 1"),
    ),
    "negative gpus": (
        "lazyconfig_train_net",
        [*TRAIN, "--num-gpus", "-1", "..."],
        ("--num-gpus -1", "at least 1"),
    ),
    "too many gpus": (
        "lazyconfig_train_net",
        [*TRAIN, "--num-gpus", "999", "--dist-backend", "nccl", "..."],
        ("GPU", "gloo"),
    ),
    "no machines": (
        "lazyconfig_train_net",
        [*TRAIN, "--num-machines", "0", "..."],
        ("--num-machines 0", "1 or more"),
    ),
    "rank too high": (
        "lazyconfig_train_net",
        [*TRAIN, "--num-machines", "2", "--machine-rank", "2", "..."],
        ("--machine-rank 2", "numbered from 0 to 1"),
    ),
    "negative rank": (
        "lazyconfig_train_net",
        [*TRAIN, "--machine-rank", "-1", "..."],
        ("--machine-rank -1", "numbered from 0 to 0"),
    ),
    **{
        f"address {address!r}": (
            "lazyconfig_train_net",
            [*TRAIN, "--num-gpus", "2", "--dist-url", address, "..."],
            (f"--dist-url {address}", *ADDRESS),
        )
        for address in ("nonsense", "tcp://host", "http://host:1", "tcp://host:99999", "")
    },
    # the demo
    "no such input": (
        "demo",
        [*DEMO, "--input", "{root}/gone"],
        ("no file or folder {root}/gone", "correct --input"),
    ),
    "a pattern": ("demo", [*DEMO, "--input", "{root}/*.jpg"], ("no file or folder {root}/*.jpg",)),
    "empty folder": (
        "demo",
        [*DEMO, "--input", "{root}/empty"],
        ("no image file in the folder {root}/empty", "correct --input"),
    ),
    "text as image": (
        "demo",
        [*DEMO, "--input", "{root}/text.jpg", "..."],
        ("Skipped: {root}/text.jpg is not an image file", "replace it"),
    ),
    "input overwritten": (
        "demo",
        [*DEMO[:-1], "{root}", "--input", "{root}/photo.png"],
        ("would overwrite the input {root}/photo.png", "set --output"),
    ),
    "output is a file": (
        "demo",
        [*DEMO[:-1], "{json}", "--input", "{image}"],
        ("output folder", "{json}", "set --output"),
    ),
    "no weights": (
        "demo",
        ["--config-file", "{tiny}", "--output", "{output}", "--input", "{image}", "..."],
        ("No weights", "--weights FILE"),
    ),
    "weights are a folder": (
        "demo",
        [*DEMO, "--weights", "{root}", "--input", "{image}", "..."],
        ("{root} (it is a folder)", "correct the path"),
    ),
    "no device": (
        "demo",
        [*DEMO, "--device", "quantum", "--input", "{image}", "..."],
        ("quantum is no device", "set it to cuda or cpu"),
    ),
    "number of classes": (
        "demo",
        [*DEMO, "--input", "{image}"],
        ("dataset.train_json is not set", "add dataset.train_json="),
    ),
    "override of the demo": (
        "demo",
        [*DEMO, "--input", "{image}", "model.num_clases=3"],
        ("unknown config key model.num_clases", "Did you mean model.num_classes?"),
    ),
    "no model of the demo": (
        "demo",
        [*DEMO, "--input", "{image}", "...", "model.num_classes=-1"],
        ("model cannot be built", "TinyDetector(num_classes=-1)"),
    ),
    "no such video": (
        "demo",
        [*DEMO, "--video-input", "{root}/a.mp4"],
        ("{root}/a.mp4", "correct"),
    ),
    "json of a video": (
        "demo",
        [*DEMO, "--input", "{image}", "--predictions", "a.json"],
        ("--predictions is for --video-input",),
    ),
    # files for elsewhere
    "neither file": (
        "export",
        [*DEMO[:-1], "{root}/model.pth", "..."],
        ("{root}/model.pth is neither .pt2 nor .onnx", "give the file that ending"),
    ),
    "export into a file": (
        "export",
        [*DEMO[:-1], "{json}/model.pt2", "..."],
        ("output folder", "{json}", "set --output"),
    ),
    "no backbone to export": (
        "export",
        [*DEMO[:-1], "{root}/model.pt2", "..."],
        ("TinyDetector without backbone", "exported"),
    ),
    "no detector to export": (
        "export",
        [*DEMO[:-1], "{root}/model.pt2", "--part", "detector", "..."],
        ("the model is a TinyDetector", "export its backbone alone"),
    ),
    # pictures
    "no results": (
        "visualize",
        [*DRAW, "--results", "{root}/gone.json", "..."],
        ("results file {root}/gone.json does not exist", "check the path"),
    ),
    "annotations as results": (
        "visualize",
        [*DRAW, "--results", "{json}", "..."],
        ("{json} is not in COCO's results format", "coco_instances_results.json"),
    ),
    "results of other data": (
        "visualize",
        [*DRAW, "--results", "{root}/others.json", "..."],
        ("category_id 77", "another data set"),
    ),
    "damaged results": (
        "visualize",
        [*DRAW, "--results", "{root}/damaged.json", "..."],
        ("{root}/damaged.json: result number 1 (image 1)", "bbox of four numbers"),
    ),
    "sheet in a file": (
        "visualize",
        [*DRAW[:-1], "{json}/sheet.png", *RESULTS, "..."],
        ("picture {json}/sheet.png cannot be written", "check that the folder"),
    ),
    "data not named": ("visualize", [*DRAW, *RESULTS], ("dataset.test_json is not set", "add")),
    "no data to draw": (
        "visualize",
        [*DRAW, *RESULTS, "...", "dataloader.test=None"],
        ("{tiny} names 0 data sets", "dataloader.test.dataset.names"),
    ),
    # generated data
    "no shapes": (
        "make_shapes_dataset",
        ["{root}/s", "--num-train", "0"],
        ("generate 0", "at least"),
    ),
    "small shapes": (
        "make_shapes_dataset",
        ["{root}/s", "--image-size", "10", "20"],
        ("sides of 10 to 20", "48 to"),
    ),
    "huge shapes": (
        "make_shapes_dataset",
        ["{root}/s", "--image-size", "64", "1000000"],
        ("sides of 64 to 1000000", "48 to"),
    ),
    "negative seed": (
        "make_shapes_dataset",
        ["{root}/s", "--seed", "-1"],
        ("seed -1", "at least 0"),
    ),
    "folder of others": (
        "make_shapes_dataset",
        ["{root}"],
        ("{root} exists and is not a generated", "choose another folder"),
    ),
    "below a file": (
        "make_shapes_dataset",
        ["{json}/s"],
        ("{json}/s cannot be written", "choose a folder"),
    ),
}


@pytest.fixture
def fill(data):
    """Make the files that arguments name; returns what puts their places into texts."""
    root = data.root
    (root / "empty").mkdir()
    (root / "text.jpg").write_text("no image")
    (root / "photo.png").write_bytes(data.first_image.read_bytes())
    (root / "results.json").write_text("[]")
    (root / "others.json").write_text(
        '[{"image_id": 1, "category_id": 77, "bbox": [1, 2, 3, 4], "score": 0.9}]'
    )
    (root / "damaged.json").write_text(
        '[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3], "score": 0.9}]'
    )
    torch.save({"model": {"mean": torch.zeros(2)}}, root / "weights.pth")
    places = {
        "tiny": TINY,
        "root": root,
        "json": data.train_json,
        "image": data.first_image,
        "weights": root / "weights.pth",
        "output": data.output,
    }

    def arguments(texts: list[str]) -> list[str]:
        filled = []
        for text in texts:
            filled += data.overrides if text == "..." else [text.format(**places)]
        return filled

    arguments.places = places
    return arguments


@pytest.mark.parametrize("name", CASES)
def test_a_bad_command_line(run_badly, fill, name):
    tool, texts, essentials = CASES[name]
    assert_says(run_badly(tool, *fill(texts)), essentials, **fill.places)


# What is refused as command lines are everywhere: usage and a sentence, status 2.
REFUSED = {
    "unknown flag": ("lazyconfig_train_net", [*TRAIN, "--foo"], "--foo"),
    "misspelt flag": ("lazyconfig_train_net", [*TRAIN, "--evalonly"], "--evalonly"),
    "config without file": ("lazyconfig_train_net", ["--config-file"], "expected one argument"),
    "gpus as text": ("lazyconfig_train_net", [*TRAIN, "--num-gpus", "two"], "--num-gpus"),
    "unknown backend": ("lazyconfig_train_net", [*TRAIN, "--dist-backend", "mpi"], "'mpi'"),
    "no input": ("demo", DEMO, "--input"),
    "no output": ("demo", [*DEMO[:-2], "--input", "{image}"], "--output"),
    "two inputs": ("demo", [*DEMO, "--input", "a.jpg", "--video-input", "a.mp4"], "not allowed"),
    "score above 1": (
        "demo",
        [*DEMO, "--input", "{image}", "--confidence-threshold", "5"],
        "5 is not a number from 0 to 1",
    ),
    "score nan": (
        "demo",
        [*DEMO, "--input", "{image}", "--confidence-threshold", "nan"],
        "nan is not a number from 0 to 1",
    ),
    "batch of none": ("demo", [*DEMO, "--input", "{image}", "--batch-size", "0"], "at least 1"),
    "no command": ("visualize", [], "command"),
    "no images to draw": ("visualize", [*DRAW, *RESULTS, "--max-images", "0"], "at least 1"),
    "nothing to check": ("check_dataset", [], "JSON"),
    "no images to check": ("check_dataset", ["{json}"], "IMAGES"),
    "no folder for shapes": ("make_shapes_dataset", [], "DIR"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_parser_refuses(fill, capsys, name):
    tool, texts, reason = REFUSED[name]
    with pytest.raises(SystemExit) as caught:
        load_tool(tool)(fill(texts))
    assert caught.value.code == 2
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert "error: " in sentence and reason in sentence


CHECKED = {
    "no json": (["{root}/gone.json", "{root}"], "{root}/gone.json does not exist"),
    "no image folder": (["{json}", "{root}/gone"], "image folder {root}/gone of {json} does not"),
    "the wrong way round": (["{root}", "{json}"], "{root} cannot be read: Is a directory"),
    "a photo for the json": (["{image}", "{root}"], "{image} is not json"),
}


@pytest.mark.parametrize("name", CHECKED)
def test_the_check_reports_what_it_is_given(fill, capsys, name):
    texts, finding = CHECKED[name]
    assert load_tool("check_dataset")(fill(texts)) == 1
    report = capsys.readouterr().out
    assert finding.format(**fill.places) in report and "Result: 1 error" in report


# ---- as programs --------------------------------------------------------------------------------


def run_program(tool: str, *arguments, **variables) -> tuple[int, str]:
    """The exit status and stderr's last line; asserts that nothing shows a traceback."""
    environment = {**os.environ, "PYTHONPATH": str(TINY.parent), "IWIN_D2_TRACEBACK": ""}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / f"{tool}.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**environment, **variables},
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stderr.strip().splitlines()[-1]


def test_an_unknown_framework():
    status, sentence = run_program("demo", IWIN_D2_FRAMEWORK="pytorch")
    assert status == 1
    essentials = ("IWIN_D2_FRAMEWORK='pytorch' is not known", "'detectron2' or 'native'", "unset")
    assert_says(sentence, essentials)


def test_a_bad_data_set_as_a_program(data):
    data.train_json.write_text("{")
    status, sentence = run_program("lazyconfig_train_net", "--config-file", TINY, *data.overrides)
    assert status == 1
    assert_says(sentence, ("{json} is not json",), json=data.train_json)
