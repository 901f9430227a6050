"""tools/check_dataset.py on images in class folders."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iwin_d2.data.classification.check import ClassFolderCheck
from iwin_d2.data.classification.image_folder import load_image_folder
from iwin_d2.data.classification.image_mapper import ImageMapper
from iwin_d2.data.problems import KINDS
from iwin_d2.errors import ConfigError

TOOL = Path(__file__).parents[3] / "tools" / "check_dataset.py"


def main(*arguments) -> int:
    spec = importlib.util.spec_from_file_location("check_dataset", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(argument) for argument in arguments])


def write(path, seed, size=(30, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folders(tmp_path):
    """Two folders without a fault: three images of each of three classes, and one to test on."""
    for number, name in enumerate(("cat", "dog", "emu")):
        for image in range(3):
            write(tmp_path / "train" / name / f"{image}.png", 10 * number + image)
        write(tmp_path / "val" / name / "deeper" / "a.jpg", 100 + number, (40, 10 + number))
    return tmp_path / "train", tmp_path / "val"


def find(train, test=None, **options):
    check = ClassFolderCheck(str(train), test and str(test))
    found = list(check.problems(**options))
    return {(p.severity, p.kind): p.message for p in found}, check.summary


def test_good_folders_have_no_problems(folders, capsys):
    found, summary = find(*folders)
    assert found == {}
    assert (summary["images"], summary["test_images"]) == (9, 3)
    assert summary["image_sizes"]["smallest"] == [40, 10]
    assert summary["classes"][1] == {"name": "dog", "images": 3, "test_images": 1}
    assert main(*folders, "--class-folders") == 0
    out = capsys.readouterr().out
    assert "9 images, 3 to test" in out and "Training takes this data set" in out
    assert main(folders[0], "--class-folders") == 0


def break_folders(train, val):
    """Something of every kind; returns what is to be found, and where."""
    (train / "cat" / "0.png").write_bytes((train / "cat" / "0.png").read_bytes()[:300])
    (train / "fox").mkdir()
    (train / "dog" / "notes.txt").write_text("text")
    (train / "dog" / ".hidden").write_text("text")
    write(train / "lonely.jpg", 50)
    shutil.copy(train / "dog" / "0.png", train / "emu" / "copy.png")
    write(val / "Cat" / "a.png", 60)
    shutil.rmtree(val / "emu")
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(train / "emu" / "moving.gif", save_all=True, append_images=frames[1:])
    return {
        ("error", "image-damaged"): "cat/0.png is truncated or damaged",
        ("error", "class-empty"): "fox has no image",
        ("error", "classes"): "the class Cat, which .*: cat differs in upper and lower case",
        ("warning", "class-absent"): "no folder",
        ("warning", "image-frames"): "moving.gif has 2 frames",
        ("note", "duplicate-image"): "emu/copy.png is the same file as .*dog/0.png, of another",
        ("note", "not-used"): "notes.txt is no image|lonely.jpg lies beside",
    }


def test_everything_is_found_in_one_pass(folders, capsys, tmp_path):
    expected = break_folders(*folders)
    found, summary = find(*folders)
    assert found.keys() == expected.keys()
    assert main(*folders, "--class-folders", "--json", tmp_path / "found.json", "--all") == 1
    out = capsys.readouterr().out
    for _, kind in expected:
        assert f"  {kind} ({KINDS[kind]}): " in out
    problems = json.loads((tmp_path / "found.json").read_text())["problems"]
    for (severity, kind), text in expected.items():
        messages = [
            p["message"] for p in problems if (p["severity"], p["kind"]) == (severity, kind)
        ]
        assert messages
        for message in messages:
            assert any(part in message or _matches(part, message) for part in text.split("|"))
    assert sum(p["kind"] == "not-used" for p in problems) == 2
    assert sum(p["kind"] == "class-absent" for p in problems) == 2  # emu and fox
    assert summary["images"] == 11


def _matches(pattern, text):
    first, _, last = pattern.partition(".*")
    return first in text and last in text.partition(first)[2]


def test_threads_find_the_same(folders):
    break_folders(*folders)
    runs = []
    for workers in (1, 3):
        check = ClassFolderCheck(*map(str, folders))
        runs.append((list(check.problems(workers=workers)), check.summary))
    assert runs[0] == runs[1]


def test_an_image_to_train_and_to_test(folders):
    train, val = folders
    shutil.copy(train / "dog" / "1.png", val / "dog" / "1.png")
    found, _ = find(train, val)
    assert found.keys() == {("note", "duplicate-image")}
    assert "which is trained on" in found["note", "duplicate-image"]


def test_without_decoding_names_alone_are_looked_at(folders):
    break_folders(*folders)
    kinds = {kind for _, kind in find(*folders, decode=False)[0]}
    assert kinds == {"class-empty", "classes", "class-absent", "not-used"}


@pytest.mark.parametrize("name", ["deep.png", "grey.png", "cmyk.jpg", "turned.jpg"])
def test_what_the_mapper_reads_is_no_error(folders, name):
    path = folders[0] / "cat" / name
    if name == "deep.png":
        Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(path)
    elif name == "turned.jpg":
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (8, 9)).save(path, exif=exif)
    else:
        Image.new({"grey.png": "L", "cmyk.jpg": "CMYK"}[name], (8, 9)).save(path)
    assert all(severity != "error" for severity, _ in find(*folders)[0])
    records = load_image_folder(str(folders[0]))
    record = next(record for record in records if record["file_name"] == str(path))
    assert ImageMapper()(record)["image"].shape[0] == 3


def test_folders_that_are_none(tmp_path, folders, capsys):
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "nowhere"):
        found, summary = find(place, folders[1])
        assert found.keys() == {("error", "file")} and summary["images"] == 0
        assert main(place, "--class-folders") == 1
        assert "file (" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--videos", "--decode", "--no-images", "--num-classes=3"])
def test_flags_of_other_data_sets_are_refused(folders, flag):
    with pytest.raises(ConfigError, match="is for other data sets"):
        main(*folders, "--class-folders", flag)


def test_other_data_sets_need_a_second_folder(folders, capsys):
    with pytest.raises(SystemExit):
        main(folders[0])
    assert r"required: IMAGES|LABELS|VIDEOS" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="--class-folders"):
        main(*folders)
