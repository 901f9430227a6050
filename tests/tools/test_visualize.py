"""tools/visualize.py on a small cascade and generated images."""

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iwin_d2.data.shapes import generate_shapes_dataset
from iwin_d2.engine.build import build
from iwin_d2.engine.detection import evaluate_only, load_config
from iwin_d2.engine.reproducible import seed_everything
from iwin_d2.errors import CheckpointError, ConfigError, DataError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "projects/cascade_mask_rcnn/configs/quickstart.py"
SIZE = 96  # of the longer side of the images as the model sees them


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes") / "data"
    generate_shapes_dataset(folder, num_train=3, num_val=3, image_size=(60, 70))
    return folder


@pytest.fixture(scope="module")
def overrides(data):
    """Those that the cascade needs to work on the data, in little time."""
    paths = {"json": "annotations/instances_{}.json", "images": "{}"}
    files = [
        f"dataset.{part}_{key}={data / path.format(split)}"
        for part, split in (("train", "train"), ("test", "val"))
        for key, path in paths.items()
    ]
    workers = [f"dataloader.{part}.num_workers=0" for part in ("train", "test")]
    resize = "dataloader.test.mapper.augmentations[0]"
    sizes = [f"{resize}.short_edge_length={SIZE}", f"{resize}.max_size={SIZE}"]
    return [*files, *workers, *sizes, "train.device=cpu"]


@pytest.fixture(scope="module")
def weights(overrides, tmp_path_factory):
    """A checkpoint of the cascade, not trained."""
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


def first_image(data):
    return next((data / "val").glob("*.jpg"))


def test_data_before_and_after_augmentation(data, overrides, tmp_path, capsys):
    visualize("data", "--output", tmp_path / "out", "--max-images", 2, "--draws", 1, *overrides)
    pictures = sorted((tmp_path / "out").glob("*.png"))
    assert len(pictures) == 2
    assert str(tmp_path / "out" / "index.html") in capsys.readouterr().out


def test_data_of_chosen_images_of_the_test_set(data, overrides, tmp_path):
    options = ["--part", "val_loss", "--image-ids", "3,1", "--draws", 1]
    visualize("data", "--output", tmp_path, *options, *overrides)
    assert {path.name for path in tmp_path.glob("*.png")} == {"0001_000003.png", "0002_000001.png"}


def test_a_checkpoint_is_run_as_evaluation_runs_it(overrides, weights, tmp_path):
    cfg = load_config(str(CONFIG), [*overrides, f"train.output_dir={tmp_path}"])
    cfg.train.init_checkpoint = str(weights)
    evaluate_only(cfg)
    results = tmp_path / "inference" / "coco_instances_results.json"
    many = ["--max-images", 1, "--score-threshold", 0.1, *overrides]
    visualize("predictions", "--results", results, "--output", tmp_path / "a", *many)
    visualize("predictions", "--weights", weights, "--output", tmp_path / "b", *many)
    rows = list(csv.DictReader((tmp_path / "a" / "index.csv").open()))
    assert rows == list(csv.DictReader((tmp_path / "b" / "index.csv").open()))
    assert len(rows) == 3 and any(int(row["wrong"]) for row in rows)
    drawn = [np.asarray(Image.open(tmp_path / part / rows[0]["picture"])) for part in "ab"]
    np.testing.assert_array_equal(*drawn)


def test_a_checkpoint_can_be_run_on_some_images(overrides, weights, tmp_path):
    options = ["--weights", weights, "--run-on", 2, "--output", tmp_path]
    visualize("predictions", *options, *overrides)
    assert (tmp_path / "index.csv").read_text().count("\n") == 3


def test_attention(data, overrides, weights, tmp_path, capsys):
    image = ["--weights", weights, "--image", first_image(data)]
    for number, options in enumerate(
        [["--at", "10,59"], ["--stage", "res2", "--head", 0], ["--stage", "res5", "--head", "all"]]
    ):
        path = tmp_path / "new" / f"{number}.png"
        visualize("attention", *image, "--output", path, *options, *overrides)
        assert Image.open(path).width > 900
    printed = capsys.readouterr().out
    scale = SIZE / max(Image.open(first_image(data)).size)
    row, column = int(59.5 * scale // 16), int(10.5 * scale // 16)
    assert f"Stage res4, block 1: the token of row {row}, column {column} " in printed
    assert "mean of the heads: " in printed and "% map padding" in printed
    assert "head 7: " in printed


def test_attention_of_a_backbone_alone(data, overrides, weights, tmp_path):
    tensors = torch.load(weights)["model"]
    prefix = "backbone.bottom_up."
    alone = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    torch.save(alone, tmp_path / "backbone.pth")
    pictures = []
    for path in (weights, tmp_path / "backbone.pth"):
        output = tmp_path / f"{path.stem}.png"
        options = ["--weights", path, "--image", first_image(data), "--output", output]
        visualize("attention", *options, *overrides)
        pictures.append(np.asarray(Image.open(output)))
    np.testing.assert_array_equal(*pictures)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        (["--image", "gone.jpg"], DataError, "There is no image gone.jpg"),
        (["--at", "900,10"], ConfigError, r"900,10 is outside of .*: give x from 0 to"),
        (["--stage", "res9"], ConfigError, "no stage res9: give one of res2, res3, res4, res5"),
        (["--block", "2"], ConfigError, "res4 has no block 2: its blocks are 0 to 1"),
        (["--head", "4"], ConfigError, "res4 has no head 4: its heads are 0 to 3"),
        (["--weights", "gone.pth"], CheckpointError, "There is no checkpoint gone.pth"),
        (["--weights", ""], CheckpointError, "No weights"),
        (["model=None"], ConfigError, "no model"),
        (["dataloader.test=None"], ConfigError, "dataloader.test.mapper"),
    ],
)
def test_attention_that_cannot_be_drawn(
    data, overrides, weights, tmp_path, options, error, sentence
):
    flags = ["--weights", weights, "--image", first_image(data), "--output", tmp_path / "a.png"]
    flags += [option for option in options if "=" not in option]
    with pytest.raises(error, match=sentence):
        visualize("attention", *flags, *overrides, *(o for o in options if "=" in o))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("flag", "text"), [("--head", "best"), ("--at", "3"), ("--at", "a,b")])
def test_arguments_of_attention(data, tmp_path, capsys, flag, text):
    with pytest.raises(SystemExit):
        visualize("attention", "--image", "a", "--output", tmp_path / "a.png", flag, text)
    assert text in capsys.readouterr().err


def test_data_that_cannot_be_drawn(data, overrides, tmp_path):
    output = ["--output", tmp_path / "out"]
    with pytest.raises(ConfigError, match=r"names 0 data sets in dataloader\.gone"):
        visualize("data", *output, "--part", "gone", *overrides)
    with pytest.raises(DataError, match="no image of id 99"):
        visualize("data", *output, "--image-ids", "1,99", *overrides)
    with pytest.raises(ConfigError, match=r"has no dataloader\.train\.mapper"):
        visualize("data", *output, *overrides, "dataloader.train.mapper=None")
    assert not (tmp_path / "out").exists()


def test_predictions_that_cannot_be_drawn(data, overrides, tmp_path):
    results = tmp_path / "results.json"
    box = {"image_id": 77, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9}
    results.write_text(json.dumps([box]))
    output = ["--results", results, "--output", tmp_path / "out"]
    with pytest.raises(DataError, match=r"predictions for image 77 .*'custom_test' does not have"):
        visualize("predictions", *output, *overrides)
    assert not (tmp_path / "out").exists()


def test_an_empty_data_set(data, overrides, tmp_path):
    content = json.loads((data / "annotations/instances_val.json").read_text())
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps({**content, "images": [], "annotations": []}))
    (tmp_path / "results.json").write_text("[]")
    output = ["--results", tmp_path / "results.json", "--output", tmp_path / "out"]
    with pytest.raises((DataError, ConfigError), match=r"(?i)empty|no image"):
        visualize("predictions", *output, *overrides, f"dataset.test_json={empty}")
    with pytest.raises((DataError, ConfigError), match=r"(?i)empty|no image"):
        visualize("data", "--output", tmp_path, *overrides, f"dataset.train_json={empty}")
