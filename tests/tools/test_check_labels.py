"""tools/check_dataset.py on images and label images."""

import importlib.util
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iwin_d2.data.problems import KINDS
from iwin_d2.data.segmentation_shapes import SegmentationPaths, generate_segmentation_dataset
from iwin_d2.engine.cli import run_tool
from iwin_d2.errors import ConfigError

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "check_dataset.py"
CAMVID = ROOT.parent / "shared" / "realdata" / "camvid_ade"


def main(*arguments) -> int:
    spec = importlib.util.spec_from_file_location("check_dataset", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "segments"
    generate_segmentation_dataset(root, 10, 1, image_size=(64, 80), max_objects=6, sizes=(0.2, 0.5))
    return root


@pytest.fixture
def paths(whole, tmp_path) -> SegmentationPaths:
    """A copy to be broken."""
    shutil.copytree(whole, tmp_path / "segments")
    return SegmentationPaths.under(tmp_path / "segments")


def check(paths, *flags) -> int:
    return main(paths.train_images, paths.train_labels, "--classes", paths.classes, *flags)


def label(paths, number: int) -> Path:
    return Path(paths.train_labels) / f"{number:06d}.png"


def image(paths, number: int) -> Path:
    return Path(paths.train_images) / f"{number:06d}.jpg"


def change(path: Path, function) -> np.ndarray:
    values = function(np.array(Image.open(path)))
    Image.fromarray(values).save(path)
    return values


def test_a_good_data_set(paths, capsys):
    assert check(paths) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    labels = [np.array(Image.open(path)) for path in sorted(Path(paths.train_labels).iterdir())]
    pixels = sum(values.size for values in labels)
    assert f"10 images with labels, {pixels:,} pixels, 0.00 % of them ignored\n" in printed.out
    names = ("background", "circle", "rectangle", "triangle", "star")
    for number, name in enumerate(names):
        share = 100 * sum((values == number).sum() for values in labels) / pixels
        images = sum((values == number).any() for values in labels)
        row = rf"{number} +{number} +{name} +{re.escape(f'{share:.2f}')} % +{images}\n"
        assert re.search(row, printed.out)
    assert "10 of 10 images are smaller than the crop of 512x512" in printed.out
    assert printed.out.endswith("Result: no problems. Training takes this data set.\n")
    assert check(paths, "--crop", 64, 64) == 0
    assert "smaller than the crop" not in capsys.readouterr().out


def palette(path: Path) -> None:
    picture = Image.open(path).convert("P")
    picture = Image.frombytes("P", picture.size, np.array(Image.open(path)).tobytes())
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [9] * 759)
    picture.save(path)


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).crop((0, 0, 64, 70)).save(path, exif=exif)


def break_it(paths) -> dict[str, tuple[str, str]]:
    """One problem a file; returns the kind and severity by the name of the image."""
    change(label(paths, 1), lambda values: np.stack([values * 50] * 2 + [values], axis=2))
    palette(label(paths, 2))
    change(label(paths, 3), lambda values: np.where(values == 0, 9, values).astype(np.uint8))
    change(label(paths, 4), lambda values: values[:-3])
    label(paths, 5).unlink()
    change(label(paths, 6), lambda values: np.full_like(values, 255))
    label(paths, 7).write_bytes(label(paths, 7).read_bytes()[:120])
    image(paths, 8).write_bytes(image(paths, 8).read_bytes()[:600])
    turned(image(paths, 9))
    Image.new("L", (64, 70)).save(label(paths, 9))
    shutil.copy(label(paths, 10), Path(paths.train_labels) / "extra.png")
    return {
        "000001": ("label-colours", "error"),
        "000002": ("label-palette", "error"),
        "000003": ("label-values", "error"),
        "000004": ("label-size", "error"),
        "000005": ("label-missing", "error"),
        "000006": ("label-empty", "warning"),
        "000007": ("label-damaged", "error"),
        "000008": ("image-damaged", "error"),
        "000009": ("label-orientation", "error"),
        "extra": ("label-unused", "warning"),
    }


def test_everything_is_found_in_one_pass(paths, tmp_path, capsys):
    zeros = int((np.array(Image.open(label(paths, 3))) == 0).sum())
    expected = break_it(paths)
    Path(paths.classes).write_text("background\ncircle\nrectangle\ncircle\nstar\nunicorn\n")
    report = tmp_path / "report.json"
    assert check(paths, "--json", report, "--crop", 8, 8) == 1
    out = capsys.readouterr().out
    problems = json.loads(report.read_text())["problems"]
    by_image = {p["image_id"]: (p["kind"], p["severity"]) for p in problems if p["image_id"]}
    assert by_image == expected
    others = sorted(p["kind"] for p in problems if not p["image_id"])
    assert others == ["class-absent", "file"]
    assert f"out of range: 9 in {zeros:,} pixels (0 to 5 are classes, 255 is ignored)" in out
    assert "has the name 'circle' twice, in lines 2 and 4" in out
    assert "of class 5 (unicorn, value 5 in the files)" in out
    assert "% out of range" in out
    assert "Result: 9 errors, 3 warnings. Training would stop at the errors.\n" in out
    for kind, _ in expected.values():
        assert f"  {kind} ({KINDS[kind]}): 1\n" in out


def test_threads_find_the_same(paths, capsys):
    break_it(paths)
    outputs = []
    for workers in (1, 3):
        assert check(paths, "--workers", workers) == 1
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_without_decoding(paths, capsys):
    label(paths, 7).write_bytes(label(paths, 7).read_bytes()[:120])
    change(label(paths, 3), lambda values: values + 9)
    assert check(paths, "--no-decode") == 0
    out = capsys.readouterr().out
    assert "10 images with labels, 0 pixels\n" in out and "classes:" not in out
    change(label(paths, 4), lambda values: values[:-3])
    assert check(paths, "--no-decode") == 1


def test_settings_change_what_labels_mean(paths, capsys):
    names = Path(paths.classes).read_text().splitlines()
    Path(paths.classes).write_text("\n".join(names[1:]))
    assert check(paths, "--show", 1) == 1
    assert "where classes count from 1 and 0 means no class, set reduce" in capsys.readouterr().out
    assert check(paths, "--reduce-zero-label") == 0
    assert re.search(r"0 +1 +circle", capsys.readouterr().out)
    mapping = "{0: 3, 1: 0, 2: 0, 3: 1, 4: 2}"
    arguments = (paths.train_images, paths.train_labels, "--num-classes", 4)
    assert main(*arguments, "--label-values", mapping) == 0
    assert re.search(r"0 +1\+2 +0 +\d", capsys.readouterr().out)
    with pytest.raises(ConfigError, match="is no mapping like"):
        main(*arguments, "--label-values", "3")
    with pytest.raises(ConfigError, match="ignore_value=2 is the number of a class"):
        check(paths, "--ignore-value", 2)
    for number in range(1, 11):
        palette(label(paths, number))
    assert main(*arguments, "--num-classes", 5, "--accept-palette") == 0


def test_a_mask_of_255(paths, capsys):
    for number in range(1, 11):
        change(label(paths, number), lambda values: np.where(values, 255, 0).astype(np.uint8))
    arguments = (paths.train_images, paths.train_labels, "--num-classes", 2)
    assert main(*arguments) == 0
    out = capsys.readouterr().out
    assert "no pixel of the labels" in out and "label_values={0: 0, 255: 1}" in out
    assert main(*arguments, "--label-values", "{0: 0, 255: 1}", "--ignore-value", 254) == 0
    assert "no pixel of the labels" not in capsys.readouterr().out


def test_command_lines_that_mix_the_two(paths, tmp_path):
    with pytest.raises(ConfigError, match="is a folder: to check its images and their label"):
        main(paths.train_images, paths.train_labels)
    with pytest.raises(ConfigError, match="leave one of both out"):
        check(paths, "--allow-empty")


@pytest.mark.parametrize("what", ["images", "labels", "classes"])
def test_what_is_not_there(paths, capsys, what):
    if what == "classes":
        os.unlink(paths.classes)
    else:
        shutil.rmtree(paths.train_images if what == "images" else paths.train_labels)
    assert check(paths) == 1
    assert "does not exist: check the path (relative paths" in capsys.readouterr().out


def test_a_wrong_command_line_is_one_sentence_and_status_1(paths, capsys):
    assert run_tool(lambda: main(paths.train_images, paths.train_labels)) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and "--classes FILE" in printed.err
    assert len(printed.err.splitlines()) == 1


@pytest.mark.skipif(not CAMVID.is_dir(), reason="needs ../shared/realdata/camvid_ade")
@pytest.mark.parametrize(("split", "count"), [("training", 122), ("validation", 41)])
def test_real_images(split, count, capsys):
    folders = (CAMVID / "images" / split, CAMVID / "annotations" / split)
    assert main(*folders, "--classes", CAMVID / "classes.txt", "--reduce-zero-label") == 0
    out = capsys.readouterr().out
    assert f"{count} images with labels" in out
    ignored = {"training": "3.82", "validation": "1.6"}[split]
    assert f"pixels, {ignored}" in out and "11  bicyclist" in out
