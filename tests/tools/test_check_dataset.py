"""tools/check_dataset.py: what it prints, writes and returns."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from iwin_d2.data.problems import KINDS
from iwin_d2.data.shapes import generate_shapes_dataset
from iwin_d2.errors import ConfigError

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "check_dataset.py"


def main(*arguments) -> int:
    spec = importlib.util.spec_from_file_location("check_dataset", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(argument) for argument in arguments])


@pytest.fixture
def shapes(tmp_path):
    return generate_shapes_dataset(tmp_path / "shapes", 4, 2, image_size=(64, 64))


def edit(json_file, change) -> dict:
    data = json.loads(Path(json_file).read_text())
    change(data)
    Path(json_file).write_text(json.dumps(data))
    return data


def break_it(shapes) -> None:
    """Four errors, of two kinds, seven warnings of one, a note."""
    images = Path(shapes.train_images)

    def change(data):
        for annotation in data["annotations"]:
            annotation["bbox"][2] = max(annotation["bbox"][2], 1)
        data["annotations"][0]["bbox"][2] = -5
        data["annotations"][1]["category_id"] = 99
        for annotation in data["annotations"][2:4]:
            annotation["segmentation"] = [[1, 2, 3, 4]]
        template = {**data["annotations"][4], "bbox": [1, 1, 0, 5]}
        top = max(annotation["id"] for annotation in data["annotations"])
        data["annotations"] += [{**template, "id": top + 1 + i} for i in range(7)]

    edit(shapes.train_json, change)
    Image.new("RGB", (9, 9)).save(images / "stray.png")


def test_a_good_data_set(shapes, capsys):
    assert main(shapes.train_json, shapes.train_images) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    data = json.loads(Path(shapes.train_json).read_text())
    assert "4 images, 0 of them without objects" in printed.out
    assert f"{len(data['annotations'])} annotations, 0 of them crowds" in printed.out
    assert "image sizes: smallest 64x64, median 64x64, largest 64x64" in printed.out
    for category in data["categories"]:
        of_class = [a for a in data["annotations"] if a["category_id"] == category["id"]]
        images = len({annotation["image_id"] for annotation in of_class})
        row = rf"{category['id']} +{category['name']} +{len(of_class)} +{images}\n"
        assert re.search(row, printed.out)
    assert printed.out.endswith("Result: no problems. Training takes this data set.\n")


def test_a_bad_data_set(shapes, capsys):
    break_it(shapes)
    assert main(shapes.train_json, shapes.train_images) == 1
    out = capsys.readouterr().out
    assert "Errors: 4\n" in out and "Warnings: 7\n" in out and "Notes: 1\n" in out
    assert f"  polygon ({KINDS['polygon']}): 2\n" in out
    assert "has category_id 99" in out and "of negative size" in out
    assert out.count("without area: it is left out") == 5
    assert "... and 2 more (--all shows them)" in out
    assert "stray.png is not listed" in out
    assert out.endswith("Result: 4 errors, 7 warnings. Training would stop at the errors.\n")


def test_how_much_is_shown(shapes, capsys):
    break_it(shapes)
    main(shapes.train_json, shapes.train_images, "--all")
    out = capsys.readouterr().out
    assert out.count("without area: it is left out") == 7 and "--all" not in out
    main(shapes.train_json, shapes.train_images, "--show", 1)
    out = capsys.readouterr().out
    assert out.count("without area: it is left out") == 1 and "... and 6 more" in out


def test_warnings_alone_are_no_failure(shapes, capsys):
    edit(shapes.train_json, lambda d: d["annotations"][0].pop("iscrowd"))
    assert main(shapes.train_json, shapes.train_images) == 0
    assert capsys.readouterr().out.endswith("1 warning. Training takes this data set.\n")


def test_everything_as_json(shapes, tmp_path, capsys):
    break_it(shapes)
    report = tmp_path / "report.json"
    main(shapes.train_json, shapes.train_images, "--json", report, "--show", 0)
    assert "without area" not in capsys.readouterr().out.replace(KINDS["box-empty"], "")
    found = json.loads(report.read_text())
    assert found["summary"]["images"] == 4
    kinds = [problem["kind"] for problem in found["problems"]]
    assert sorted(kinds) == sorted(
        ["box", "category", "polygon", "polygon", "unlisted", *["box-empty"] * 7]
    )
    first = next(problem for problem in found["problems"] if problem["kind"] == "category")
    data = json.loads(Path(shapes.train_json).read_text())
    assert first["annotation_id"] == data["annotations"][1]["id"]
    assert first["image_id"] == data["annotations"][1]["image_id"]
    assert first["severity"] == "error" and "category_id 99" in first["message"]
    assert [path.name for path in tmp_path.iterdir() if "tmp" in path.name] == []


def test_a_report_that_cannot_be_written_is_refused_at_once(shapes, tmp_path):
    with pytest.raises(ConfigError, match="does not exist: create it first"):
        main(shapes.train_json, shapes.train_images, "--json", tmp_path / "no" / "report.json")


@pytest.mark.parametrize("flag", ["--no-decode", "--no-images"])
def test_how_far_images_are_looked_at(shapes, capsys, flag):
    path = next(Path(shapes.train_images).iterdir())
    path.write_bytes(path.read_bytes()[:500])
    assert main(shapes.train_json, shapes.train_images) == 1
    assert "truncated or damaged" in capsys.readouterr().out
    assert main(shapes.train_json, shapes.train_images, flag) == 0
    path.unlink()
    assert main(shapes.train_json, shapes.train_images, flag) == (flag == "--no-decode")


def test_threads_find_the_same(shapes, capsys):
    for path in Path(shapes.train_images).iterdir():
        path.write_bytes(path.read_bytes()[:500])
    outputs = []
    for workers in (1, 3):
        assert main(shapes.train_json, shapes.train_images, "--workers", workers) == 1
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] and "Errors: 4\n" in outputs[0]


def test_the_classes_of_training_and_test(shapes, capsys):
    arguments = (shapes.val_json, shapes.val_images, "--train-json", shapes.train_json)
    assert main(*arguments) == 0
    edit(shapes.val_json, lambda d: d["categories"][0].update(name="other"))
    assert main(*arguments) == 1
    assert "do not have the same categories" in capsys.readouterr().out


def test_images_alone(shapes, capsys):
    edit(shapes.val_json, lambda d: d.pop("annotations"))
    assert main(shapes.val_json, shapes.val_images) == 1
    assert "'annotations' is missing" in capsys.readouterr().out
    assert main(shapes.val_json, shapes.val_images, "--allow-empty") == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, r"file \(.*\): 1\n +annotation file .*bad\.json does not exist: check the path"),
        ("{", r"file \(.*\): 1\n +annotation file .*bad\.json is not json: .* line 1, column 2"),
        ("[]", r"structure \(.*\): 1\n +.*bad\.json is not a COCO data set: it holds a list"),
        ('{"images": 3, "annotations": [], "categories": [[]]}', "'images' holds a number"),
        (
            '{"images": [3, {"id": []}], "annotations": [4], "categories": [5, {"id": {}}]}',
            "Errors: 5",
        ),
    ],
)
def test_what_is_not_coco(tmp_path, capsys, text, sentence):
    if text is not None:
        (tmp_path / "bad.json").write_text(text)
    assert main(tmp_path / "bad.json", tmp_path) == 1
    assert re.search(sentence, capsys.readouterr().out)


def test_the_command(shapes):
    """As a process: names that a terminal cannot show, and the exit status."""
    edit(shapes.train_json, lambda d: d["images"][0].update(file_name="b\u00fcr\udcff.jpg"))
    command = [sys.executable, TOOL, shapes.train_json, shapes.train_images]
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert done.stderr == ""
    assert r"b\xfcr\udcff.jpg does not exist" in done.stdout


def test_the_documentation_has_every_kind():
    page = (ROOT / "docs" / "datasets.md").read_text()
    assert [kind for kind in KINDS if f"| `{kind}` |" not in page] == []
