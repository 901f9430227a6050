"""tools/make_shapes_dataset.py and tools/visualize.py, one after the other."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iwin_d2.errors import ConfigError, DataError

TOOLS = Path(__file__).parents[2] / "tools"

CONFIG = """
from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.data import get_detection_dataset_dicts
from iwin_d2.data.coco import register_coco

dataset = dict(json="???", images="???")
dataloader = dict(test=dict(dataset=L(get_detection_dataset_dicts)(
    names=L(register_coco)(
        name="visualize_tool", json_file="${dataset.json}", image_root="${dataset.images}"
    ),
    filter_empty=False,
)))
"""


def run(tool: str, *arguments) -> None:
    spec = importlib.util.spec_from_file_location(tool, TOOLS / f"{tool}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(argument) for argument in arguments])


def make_shapes(root: Path) -> None:
    run("make_shapes_dataset", root, "--num-train", 2, "--num-val", 3, "--image-size", 64, 80)


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    """A data set, a config for it, and its ground truth as perfect predictions."""
    make_shapes(tmp_path / "shapes")
    json_file = tmp_path / "shapes" / "annotations" / "instances_val.json"
    keys = ("image_id", "category_id", "bbox")
    annotations = json.loads(json_file.read_text())["annotations"]
    results = [{**{key: item[key] for key in keys}, "score": 0.9} for item in annotations]
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "config.py").write_text(CONFIG)
    return {
        "config": tmp_path / "config.py",
        "results": tmp_path / "results.json",
        "json": json_file,
        "images": tmp_path / "shapes" / "val",
        "output": tmp_path / "drawn" / "sheet.png",
    }


def visualize(files, *overrides) -> None:
    flags = {"config-file": "config", "results": "results", "output": "output"}
    arguments = [f"--{flag}={files[key]}" for flag, key in flags.items()]
    paths = [f"dataset.json={files['json']}", f"dataset.images={files['images']}"]
    run("visualize", "predictions", *arguments, *paths, *overrides)


def test_the_shapes_command_says_where_everything_lies(tmp_path, capsys):
    make_shapes(tmp_path / "shapes")
    printed = capsys.readouterr().out
    for split, count in (("train", 2), ("val", 3)):
        assert str(tmp_path / "shapes" / "annotations" / f"instances_{split}.json") in printed
        assert len(list((tmp_path / "shapes" / split).glob("*.jpg"))) == count


def test_the_shapes_of_segmentation(tmp_path, capsys):
    arguments = ("--task", "semantic_segmentation", "--num-train", 2, "--num-val", 3)
    run("make_shapes_dataset", tmp_path / "segments", *arguments, "--image-size", 64, 80)
    printed = capsys.readouterr().out
    assert str(tmp_path / "segments" / "classes.txt") in printed
    for split, count in (("training", 2), ("validation", 3)):
        for kind in ("images", "annotations"):
            folder = tmp_path / "segments" / kind / split
            assert str(folder) in printed and len(list(folder.iterdir())) == count


def test_a_user_error_is_one_sentence_and_status_1(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    tool = [sys.executable, TOOLS / "make_shapes_dataset.py", tmp_path]
    done = subprocess.run(tool, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "not a generated shapes data set" in done.stderr


def test_the_sheet_is_drawn_from_config_and_results(files, capsys):
    visualize(files)
    assert str(files["output"]) in capsys.readouterr().out
    sheet = np.asarray(Image.open(files["output"]))
    assert sheet.shape[1] == 3 * (2 * 320 + 6 + 24) + 24


def test_wrong_overrides_and_files_are_named(files, tmp_path):
    with pytest.raises(ConfigError, match=r"dataset\.json"):
        visualize(files, "dataset.jsn=x")
    files["results"].write_text('{"not": "results"}')
    with pytest.raises(DataError, match="results format"):
        visualize(files)
    assert not files["output"].exists()
