"""tools/demo.py with a semantic segmenter, on images and on video."""

import importlib.util
import json
import sys
from pathlib import Path

import bright_demo
import numpy as np
import pytest
import torch
from color_segmenter import COLORS, NAMES
from PIL import Image

from iwin_d2.d2.data import MetadataCatalog
from iwin_d2.engine.segment_drawing import segment_color
from iwin_d2.engine.video import VideoReader
from iwin_d2.errors import ConfigError, DataError

HERE = Path(__file__).parent
TOOL = HERE.parent.parent / "tools" / "demo.py"
MetadataCatalog.get("color_demo_test").set(stuff_classes=NAMES)
SOIL, GRASS, SKY = range(3)


def demo(*arguments):
    """Run the tool in this process; returns its exit status."""
    spec = importlib.util.spec_from_file_location("demo", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = HERE / "color_config.py"
    return module.main(["--config-file", str(config), *map(str, arguments)])


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"model": {"colors": torch.tensor(COLORS, dtype=torch.float32)}}, path)
    return path


def landscape(size=(60, 40), horizon=20):
    """Labels: sky above, soil below, a piece of grass on it."""
    labels = np.full(size[::-1], SKY)
    labels[horizon:] = SOIL
    labels[horizon : horizon + 10, 5:25] = GRASS
    return labels


def write_image(path, labels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(COLORS, dtype=np.uint8)[labels]).save(path, **options)
    return path


def greyer(color, opacity):
    """The colour of an image under another one."""
    grey = np.array(color) @ (0.299, 0.587, 0.114)
    return np.array(color) + opacity**0.5 * (grey - np.array(color))


def listed(folder):
    return json.loads((folder / "predictions.json").read_text())


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# ---- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("gives", ["sem_seg", "sem_seg_labels"])
def test_draws_labels_and_lists_images(tmp_path, weights, capsys, gives):
    labels = landscape()
    path = write_image(tmp_path / "in" / "field.png", labels)
    output = tmp_path / "out"
    arguments = ("--weights", weights, "--input", path, "--output", output, f"model.gives={gives}")
    assert demo(*arguments) == 0
    assert files(output) == {"field.png", "labels/field.png", "predictions.json"}
    with Image.open(output / "labels" / "field.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), labels)
    (record,) = listed(output)
    assert (record["image_id"], record["file_name"]) == (1, str(path))
    assert (record["height"], record["width"]) == (40, 60)
    assert record["label_file"] == "labels/field.png"
    assert record["classes"] == [
        {"class": SKY, "name": "sky", "pixels": 1200, "share": 0.5},
        {"class": SOIL, "name": "soil", "pixels": 1000, "share": 0.416667},
        {"class": GRASS, "name": "grass", "pixels": 200, "share": 0.083333},
    ]
    printed = capsys.readouterr().out
    assert "1 images segmented (0 skipped)" in printed
    assert f"labelled in {output / 'labels'}" in printed


def test_the_picture_shows_the_classes_and_their_legend(tmp_path, weights):
    path = write_image(tmp_path / "in" / "field.png", landscape())
    for opacity in (0, 0.5, 1):
        output = tmp_path / str(opacity)
        demo("--weights", weights, "--input", path, "--output", output, "--opacity", opacity)
        picture = np.asarray(Image.open(output / "field.png")).astype(float)
        assert picture.shape[1] == 640  # enlarged, and a legend below
        legend = picture[427:]
        assert 20 < len(legend) < 60
        for number, place in ((SKY, (100, 500)), (SOIL, (380, 500)), (GRASS, (265, 160))):
            color = 255 * np.array(segment_color(number))
            expected = opacity * color + (1 - opacity) * greyer(COLORS[number], opacity)
            assert np.abs(picture[place] - expected).max() <= 2
            assert (np.abs(legend - color).max(2) <= 1).sum() > 100  # a square of it
        border = np.abs(picture[200:220, 500] - 255 * np.array(segment_color(SKY))).max(1)
        assert border.min() <= 1  # the contour is opaque


def test_the_colour_of_a_class_does_not_depend_on_the_others(tmp_path, weights):
    found = []
    for name, labels in (("all", landscape()), ("one", np.full((40, 60), GRASS))):
        path = write_image(tmp_path / "in" / f"{name}.png", labels)
        demo("--weights", weights, "--input", path, "--output", tmp_path / "out")
        found.append(np.asarray(Image.open(tmp_path / "out" / f"{name}.png"))[265, 160])
    np.testing.assert_array_equal(*found)


def test_folders_equal_stems_turned_photos_and_files_that_are_none(tmp_path, weights, capsys):
    folder = tmp_path / "in"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    write_image(folder / "a.png", landscape())
    write_image(folder / "a.webp", landscape(), lossless=True, exif=exif)
    (folder / "text.jpg").write_text("not an image")
    assert demo("--weights", weights, "--input", folder, "--output", tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert "text.jpg" in printed.err and "2 images segmented (1 skipped)" in printed.out
    pictures = {"a.png", "a_2.png"}
    written = pictures | {f"labels/{name}" for name in pictures} | {"predictions.json"}
    assert files(tmp_path / "out") == written
    assert [record["label_file"] for record in listed(tmp_path / "out")] == [
        "labels/a.png",
        "labels/a_2.png",
    ]
    turned = np.asarray(Image.open(tmp_path / "out" / "labels" / "a_2.png"))
    np.testing.assert_array_equal(turned, np.rot90(landscape(), -1))


def test_batches_and_threads_change_nothing(tmp_path, weights):
    for number in range(7):
        size = (60, 40) if number % 3 else (40, 60)
        write_image(tmp_path / "in" / f"{number}.png", landscape(size, 15 + number))
    common = ("--weights", weights, "--input", tmp_path / "in", "--output")
    demo(*common, tmp_path / "single", "--workers", "0")
    demo(*common, tmp_path / "many", "--batch-size", "3", "--workers", "3")
    for name in files(tmp_path / "single"):
        single, many = (tmp_path / run / name for run in ("single", "many"))
        assert single.read_bytes() == many.read_bytes(), name


def test_classes_are_numbers_where_names_are_not_at_hand(tmp_path, weights):
    path = write_image(tmp_path / "in" / "field.png", landscape())
    unnamed = "dataloader.test.dataset.names=nobody_registered_this"
    demo("--weights", weights, "--input", path, "--output", tmp_path / "out", unnamed)
    assert listed(tmp_path / "out")[0]["classes"][0] == {"class": SKY, "pixels": 1200, "share": 0.5}


def test_an_interrupted_run_leaves_the_earlier_list(tmp_path, weights, monkeypatch):
    write_image(tmp_path / "in" / "field.png", landscape())
    common = ("--weights", weights, "--input", tmp_path / "in", "--output", tmp_path / "out")
    demo(*common)
    before = {name: (tmp_path / "out" / name).read_bytes() for name in files(tmp_path / "out")}

    def interrupt(*_):
        raise KeyboardInterrupt

    for place in ("segment", "forward"):
        monkeypatch.setattr(sys.modules["color_segmenter"].ColorSegmenter, place, interrupt)
        with pytest.raises(KeyboardInterrupt):
            demo(*common)
    after = {name: (tmp_path / "out" / name).read_bytes() for name in files(tmp_path / "out")}
    assert before == after


def test_what_is_not_for_segmenters_is_refused(tmp_path, weights):
    path = write_image(tmp_path / "in" / "field.png", landscape())
    arguments = ("--weights", weights, "--input", path, "--output", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"--confidence-threshold is for detectors.*leave it out"):
        demo(*arguments, "--confidence-threshold", "0.5")
    with pytest.raises(ConfigError, match="returns depth, but no instances and no sem_seg"):
        demo(*arguments, "model.gives=depth")
    with pytest.raises(SystemExit):
        demo(*arguments, "--opacity", "2")
    assert files(tmp_path / "out") == set()
    again = write_image(tmp_path / "out" / "labels" / "field.png", landscape())
    arguments = ("--weights", weights, "--input", again, "--output", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"would overwrite the input .*labels.field\.png"):
        demo(*arguments)
    (tmp_path / "file" / "labels").parent.mkdir()
    (tmp_path / "file" / "labels").touch()
    with pytest.raises(DataError, match="labels cannot be written"):
        demo("--weights", weights, "--input", path, "--output", tmp_path / "file")


def test_what_is_not_for_detectors_is_refused(tmp_path):
    weights = bright_demo.write_weights(tmp_path / "weights.pth")
    path = bright_demo.write_image(tmp_path / "in" / "photo.png")
    arguments = ("--weights", weights, "--input", path, "--output", tmp_path / "out")
    with pytest.raises(ConfigError, match="--opacity is for semantic segmenters"):
        bright_demo.demo(*arguments, "--opacity", "0.5")


# ---- video ---------------------------------------------------------------------------------------


def write_video(path, count, rate=10):
    """A horizon that sinks; the grass is gone at the end."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 60, 40, "yuv444p"
        for number in range(count):
            labels = landscape(horizon=4 * (number + 1))
            pixels = np.array(COLORS, dtype=np.uint8)[labels]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_a_video_is_drawn_with_its_times_and_listed(tmp_path, weights, capsys):
    path = write_video(tmp_path / "clip.mp4", 9)
    output, found = tmp_path / "out" / "drawn.mp4", tmp_path / "found.json"
    arguments = ("--weights", weights, "--video-input", path, "--output", output)
    assert demo(*arguments, "--predictions", found, "--batch-size", "4", "--opacity", "1") == 0
    with VideoReader(output) as video:
        frames = list(video)
    assert [float(frame.time) for frame in frames] == pytest.approx([n / 10 for n in range(9)])
    height = frames[0].pixels.shape[0]
    assert frames[0].pixels.shape[1] == 640 and 450 < height < 480  # with a line of legend
    records = json.loads(found.read_text())
    assert [record["image_id"] for record in records] == list(range(1, 10))
    assert [record["time"] for record in records] == pytest.approx([n / 10 for n in range(9)])
    for number, (frame, record) in enumerate(zip(frames, records)):
        shares = {item["name"]: item["share"] for item in record["classes"]}
        assert shares["sky"] == pytest.approx((number + 1) / 10, abs=0.03)
        assert "label_file" not in record
        color = frame.pixels[10, 600].astype(int) - 255 * np.array(segment_color(SKY))
        assert np.abs(color).max() <= 12
    printed = capsys.readouterr().out
    assert "9 frames segmented" in printed and "skipped" not in printed
    assert "labelled" not in printed


def test_entries_of_a_videos_legend_keep_their_places(tmp_path, weights):
    path = write_video(tmp_path / "clip.mp4", 10)
    output = tmp_path / "drawn.mp4"
    demo("--weights", weights, "--video-input", path, "--output", output)
    with VideoReader(output) as video:
        legends = [frame.pixels[428:] for frame in video]
    squares = []
    for legend in (legends[0], legends[5]):
        distance = np.abs(legend - 255 * np.array(segment_color(SOIL))).max(2)
        squares.append(np.argwhere(distance < 40).mean(0))
    np.testing.assert_allclose(*squares, atol=1.5)
    # The last frame is all sky: the others are still named, with outlines.
    filled = [(np.abs(x - 255 * np.array(segment_color(SOIL))).max(2) < 40).sum() for x in legends]
    assert filled[-1] < filled[0] / 2


def test_a_refused_run_leaves_no_video(tmp_path, weights):
    path = write_video(tmp_path / "clip.mp4", 3)
    folder = tmp_path / "out"
    with pytest.raises(ConfigError, match="--confidence-threshold is for detectors"):
        demo(
            *("--weights", weights, "--video-input", path, "--output", folder / "drawn.mp4"),
            *("--predictions", folder / "found.json", "--confidence-threshold", "0.1"),
        )
    assert files(folder) == set()
