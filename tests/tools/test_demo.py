"""tools/demo.py on real image files, with a detector that finds bright pixels."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from bright_demo import demo, write_image, write_weights
from PIL import Image

from iwin_d2.engine.predict import find_images, picture_names
from iwin_d2.errors import CheckpointError, ConfigError, DataError


@pytest.fixture
def weights(tmp_path):
    return write_weights(tmp_path / "weights.pth")


def predictions(folder):
    return json.loads((folder / "predictions.json").read_text())


def test_draws_and_lists_predictions_in_pixels_of_the_file(tmp_path, weights, capsys):
    path = write_image(tmp_path / "in" / "photo.png")
    output = tmp_path / "out"
    assert demo("--weights", weights, "--input", path, "--output", output) == 0
    (record,) = predictions(output)
    assert record["bbox"] == pytest.approx([10, 5, 20, 20], abs=1)
    assert record["category_id"] == 18
    assert (record["image_id"], record["file_name"], record["score"]) == (1, str(path), 0.75)
    assert record["segmentation"]["size"] == [40, 60]
    drawing = Image.open(output / "photo.png")
    assert drawing.size == (640, 426)  # enlarged, so that the label does not hide the object
    assert (np.asarray(drawing) != np.asarray(Image.open(path).resize(drawing.size))).any()
    assert "1 predictions on 1 images (0 skipped)" in capsys.readouterr().out


def test_large_images_are_drawn_as_they_are(tmp_path, weights):
    path = write_image(tmp_path / "in" / "photo.png", size=(700, 500))
    demo("--weights", weights, "--input", path, "--output", tmp_path / "out")
    assert Image.open(tmp_path / "out" / "photo.png").size == (700, 500)


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [("a.jpg", "L", {}), ("b.jpg", "CMYK", {}), ("c.png", "P", {}), ("d.png", "RGBA", {})],
)
def test_all_kinds_of_files(tmp_path, weights, name, mode, options):
    path = write_image(tmp_path / "in" / name, mode=mode, **options)
    assert demo("--weights", weights, "--input", path, "--output", tmp_path / "out") == 0
    (record,) = predictions(tmp_path / "out")
    assert record["bbox"] == pytest.approx([10, 5, 20, 20], abs=2)


def test_a_rotated_photo_is_drawn_upright(tmp_path, weights):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    path = write_image(tmp_path / "in" / "turned.jpg", exif=exif, quality=95)
    demo("--weights", weights, "--input", path, "--output", tmp_path / "out")
    assert Image.open(tmp_path / "out" / "turned.png").size == (426, 640)
    (record,) = predictions(tmp_path / "out")
    assert record["bbox"] == pytest.approx([40 - 25, 10, 20, 20], abs=2)


def test_folders_equal_stems_and_a_threshold(tmp_path, weights):
    write_image(tmp_path / "in" / "a.png")
    write_image(tmp_path / "in" / "a.jpg")
    write_image(tmp_path / "more" / "A.png")
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    output = tmp_path / "out"
    inputs = [tmp_path / "in", tmp_path / "more" / "A.png"]
    assert demo("--weights", weights, "--output", output, "--input", *inputs) == 0
    names = {path.name for path in output.iterdir()}
    assert names == {"a.png", "a_2.png", "A_3.png", "predictions.json"}
    assert [record["image_id"] for record in predictions(output)] == [1, 2, 3]
    demo(
        "--weights",
        weights,
        "--output",
        output,
        "--confidence-threshold",
        "0.8",
        "--input",
        *inputs,
    )
    assert predictions(output) == []


def test_images_that_cannot_be_read_are_skipped_with_a_sentence(tmp_path, weights, capsys):
    good = write_image(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "text.jpg").write_text("not an image")
    cut = tmp_path / "in" / "cut.png"
    cut.write_bytes(good.read_bytes()[:60])
    output = tmp_path / "out"
    assert demo("--weights", weights, "--input", tmp_path / "in", "--output", output) == 1
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 2
    assert "text.jpg" in printed.err and "cut.png" in printed.err
    assert "on 1 images (2 skipped)" in printed.out
    (record,) = predictions(output)
    assert record["file_name"] == str(good)


def test_batches_and_threads_change_nothing(tmp_path, weights, capsys):
    folder = tmp_path / "in"
    for number in range(9):
        size = (60, 40) if number % 3 else (40, 60)
        write_image(folder / f"{number}.png", size, (5, 5, 15 + number, 25))
    (folder / "4.png").write_text("not an image")
    common = ("--weights", weights, "--input", folder, "--output")
    assert demo(*common, tmp_path / "single", "--workers", "0") == 1
    assert demo(*common, tmp_path / "many", "--batch-size", "3", "--workers", "3") == 1
    assert len(predictions(tmp_path / "single")) == 8
    for path in (tmp_path / "single").iterdir():
        assert (tmp_path / "many" / path.name).read_bytes() == path.read_bytes(), path.name
    ids = [record["image_id"] for record in predictions(tmp_path / "many")]
    assert ids == [1, 2, 3, 4, 6, 7, 8, 9]
    assert demo(*common, tmp_path / "amp", "--batch-size", "8", "--amp") == 1
    assert len(predictions(tmp_path / "amp")) == 8
    assert "8 predictions on 8 images (1 skipped)" in capsys.readouterr().out


def test_an_interrupted_run_leaves_the_earlier_list(tmp_path, weights, monkeypatch):
    write_image(tmp_path / "in" / "photo.png")
    common = ("--weights", weights, "--input", tmp_path / "in", "--output", tmp_path / "out")
    demo(*common)
    before = (tmp_path / "out" / "predictions.json").read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["bright_detector"].BrightDetector, "forward", interrupt)
    with pytest.raises(KeyboardInterrupt):
        demo(*common)
    assert (tmp_path / "out" / "predictions.json").read_bytes() == before
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"photo.png", "predictions.json"}


def test_overrides_after_the_inputs(tmp_path, weights):
    path = write_image(tmp_path / "in" / "photo.png")
    output = tmp_path / "out"
    override = "dataloader.test.mapper.augmentations.0.short_edge_length=40"
    assert demo("--weights", weights, "--output", output, "--input", path, override) == 0
    assert demo("--weights", weights, "--input", path, "--output", output, override) == 0
    with pytest.raises(ConfigError):
        demo("--weights", weights, "--input", path, "--output", output, "model.levle=1")


def test_bad_calls_are_refused(tmp_path, weights):
    path = write_image(tmp_path / "in" / "photo.png")
    output = ("--output", tmp_path / "out")
    with pytest.raises(DataError, match=r"no file or folder .*nowhere\.png"):
        demo("--weights", weights, "--input", tmp_path / "nowhere.png", *output)
    with pytest.raises(DataError, match="no image file in the folder"):
        demo("--weights", weights, "--input", tmp_path, *output)
    with pytest.raises(CheckpointError, match="--weights"):
        demo("--input", path, *output)
    with pytest.raises(CheckpointError, match=r"gone\.pth"):
        demo("--weights", tmp_path / "gone.pth", "--input", path, *output)
    with pytest.raises(ConfigError, match=r"would overwrite the input .*photo\.png"):
        demo("--weights", weights, "--input", path, "--output", tmp_path / "in")
    with pytest.raises(ConfigError, match="set --output"):
        demo("--weights", weights, "--input", path, "--output", path)
    with pytest.raises(ConfigError, match="--predictions is for --video-input"):
        demo("--weights", weights, "--input", path, "--predictions", "found.json", *output)
    for flags in (("--batch-size", "0"), ("--workers", "-1"), ("--batch-size", "many")):
        with pytest.raises(SystemExit):
            demo("--weights", weights, "--input", path, *output, *flags)


def test_classes_are_numbers_where_names_are_not_at_hand(tmp_path, weights):
    path = write_image(tmp_path / "in" / "photo.png")
    demo(
        *("--weights", weights, "--input", path, "--output", tmp_path / "out"),
        "dataloader.test.dataset.names=nobody_registered_this",
    )
    assert predictions(tmp_path / "out")[0]["category_id"] == 1


def test_inputs_are_taken_once_and_names_never_meet(tmp_path):
    path = write_image(tmp_path / "in" / "photo.png")
    assert find_images([str(path), str(path.parent), str(path)]) == [path]
    names = picture_names([Path("a.png"), Path("a.jpg"), Path("a_2.png"), Path("x/a.png")])
    assert len(set(names)) == 4
