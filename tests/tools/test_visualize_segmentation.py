"""tools/visualize.py on a small UPerNet and labelled images of a folder."""

import csv
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iwin_d2.engine.build import build
from iwin_d2.engine.detection import evaluate_only, load_config
from iwin_d2.engine.reproducible import seed_everything
from iwin_d2.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "projects/semantic_segmentation/configs/custom_folder_small.py"
NAMES = ["ground", "wall", "door"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four images of noise, three of them with another door, and their labels from 1."""
    folder = tmp_path_factory.mktemp("doors")
    rng = np.random.default_rng(0)
    for number in range(4):
        labels = np.full((48, 64), 2, dtype=np.uint8)
        labels[32:] = 1
        labels[12:32, 10 * number : 10 * number + 8] = 3
        labels[:, 60:] = 0
        pixels = (60 * labels[..., None] + rng.integers(0, 60, (48, 64, 3))).astype(np.uint8)
        for part, content in (("images", pixels), ("labels", labels)):
            (folder / part / "new").mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(folder / part / "new" / f"{number}.png")
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return folder


@pytest.fixture(scope="module")
def overrides(data):
    files = [
        f"dataset.{split}_{part}={data / part}"
        for split in ("train", "test")
        for part in ("images", "labels")
    ]
    resize = "dataloader.test.mapper.augmentations.0"
    return [
        *files,
        f"dataset.classes={data / 'classes.txt'}",
        "dataset.reduce_zero_label=True",
        *(f"dataloader.{part}.num_workers=0" for part in ("train", "test")),
        *(f"{resize}.short_edge_length=48", f"{resize}.max_size=64"),
        "train.device=cpu",
    ]


@pytest.fixture(scope="module")
def weights(overrides, tmp_path_factory):
    """A checkpoint, not trained."""
    seed_everything(0)
    cfg = load_config(str(CONFIG), overrides)
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save({"model": build(cfg, "model").state_dict()}, path)
    return path


def visualize(*arguments):
    spec = importlib.util.spec_from_file_location("visualize", ROOT / "tools" / "visualize.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    command, *rest = (str(argument) for argument in arguments)
    module.main([command, "--config-file", str(CONFIG), *rest])


def test_data_before_and_after_augmentation(overrides, tmp_path, capsys):
    output = tmp_path / "out"
    visualize("data", "--output", output, "--image-ids", "new/2,new/0", "--draws", 1, *overrides)
    assert {path.name for path in output.glob("*.png")} == {"0001_2.png", "0002_0.png"}
    assert str(output / "index.html") in capsys.readouterr().out
    with pytest.raises(DataError, match=r"no image of id new/9: .* from new/0 to new/3"):
        visualize("data", "--output", output, "--image-ids", "new/9", *overrides)


def test_a_checkpoint_is_run_as_evaluation_runs_it(overrides, weights, tmp_path):
    saving = ["dataloader.evaluator.save_labels=True", f"train.output_dir={tmp_path}"]
    cfg = load_config(str(CONFIG), [*overrides, *saving])
    cfg.train.init_checkpoint = str(weights)
    results = evaluate_only(cfg)["sem_seg"]
    few = ["--max-images", 1, *overrides]
    labels = tmp_path / "inference" / "labels"
    visualize("predictions", "--results", labels, "--output", tmp_path / "a", *few)
    visualize("predictions", "--weights", weights, "--output", tmp_path / "b", *few)
    rows = list(csv.DictReader((tmp_path / "a" / "index.csv").open()))
    assert rows == list(csv.DictReader((tmp_path / "b" / "index.csv").open()))
    assert len(rows) == 4
    accuracy = np.mean([float(row["pixel_accuracy"]) for row in rows])  # images of equal weight
    assert 100 * accuracy == pytest.approx(results["pACC"], abs=0.01)
    assert [bool(row["picture"]) for row in rows] == [True, False, False, False]
    drawn = [np.asarray(Image.open(tmp_path / part / rows[0]["picture"])) for part in "ab"]
    np.testing.assert_array_equal(*drawn)


def test_a_sheet_and_some_images_alone(overrides, weights, tmp_path):
    source = ["--weights", weights]
    visualize("predictions", *source, "--output", tmp_path / "sheet.png", *overrides)
    assert Image.open(tmp_path / "sheet.png").width > 1900  # three pairs in a row
    visualize("predictions", *source, "--output", tmp_path / "out", "--run-on", 2, *overrides)
    assert (tmp_path / "out" / "index.csv").read_text().count("\n") == 3


def test_attention(data, overrides, weights, tmp_path, capsys):
    image = data / "images" / "new" / "0.png"
    flags = ["--weights", weights, "--image", image, "--output", tmp_path / "a.png"]
    visualize("attention", *flags, "--stage", "res3", "--at", "20,30", *overrides)
    assert Image.open(tmp_path / "a.png").width > 900
    printed = capsys.readouterr().out
    assert re.search(r"Stage res3, block \d: the token of row 3, column 2 ", printed)


def test_what_does_not_go_together(overrides, weights, tmp_path):
    output = ["--output", tmp_path / "out"]
    boxes = tmp_path / "results.json"
    boxes.write_text("[]")
    with pytest.raises(ConfigError, match=r"results\.json holds objects, .*save_labels=True"):
        visualize("predictions", "--results", boxes, *output, *overrides)
    with pytest.raises(ConfigError, match="--score-threshold is for detectors"):
        source = ["--weights", weights, "--score-threshold", "0.5"]
        visualize("predictions", *source, *output, *overrides)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \S*0\.png for image .* 3 other images of 4"):
        visualize("predictions", "--results", tmp_path / "empty", *output, *overrides)
    assert not (tmp_path / "out").exists()
