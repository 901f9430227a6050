"""tools/demo.py with classifiers of images and of videos that go by brightness."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from level_classifier import NAMES, write_config, write_weights
from PIL import Image

from iwin_d2 import ClassifierPredictor
from iwin_d2.engine.classifier_predictor import ClassScore
from iwin_d2.engine.drawing import class_color
from iwin_d2.engine.predict_clips import ClipWindow
from iwin_d2.engine.score_bars import draw_scores
from iwin_d2.engine.video import Frame
from iwin_d2.errors import ConfigError, DataError

TOOL = Path(__file__).parents[2] / "tools" / "demo.py"


def demo(*arguments):
    """Run the tool in this process; returns its exit status."""
    spec = importlib.util.spec_from_file_location("demo", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(argument) for argument in arguments])


@pytest.fixture
def image_model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    config = write_config(folder / "image.yaml")
    return ("--config-file", config, "--weights", write_weights(folder / "weights.pth"))


@pytest.fixture
def video_model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    config = write_config(folder / "video.yaml", video=True)
    return ("--config-file", config, "--weights", write_weights(folder / "weights.pth"))


def grey(level, size=(60, 40)):
    return np.full((size[1], size[0], 3), level, np.uint8)


def write_folder(folder, levels):
    """A folder of frames."""
    folder.mkdir()
    for number, level in enumerate(levels):
        Image.fromarray(grey(level)).save(folder / f"frame_{number:04}.png")
    return folder


def write_video(path, levels):
    pytest.importorskip("av", reason="PyAV is not installed")
    from iwin_d2.data.video.encode import write_clip

    write_clip(path, map(grey, levels))
    return path


def read_video(path):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return [f.to_ndarray(format="rgb24") for f in frames], [f.time for f in frames]


def has_color(picture, name, far=40):
    """Whether a picture has a bar of a class."""
    color = 255 * np.array(class_color(NAMES.index(name)))
    return bool((np.abs(picture.astype(float) - color).max(-1) < far).sum() > 100)


# ---- images -------------------------------------------------------------------------------------


def test_images_are_listed_and_drawn_with_their_classes(tmp_path, image_model, capsys):
    for name, level in (("a", 45), ("b", 250)):
        Image.fromarray(grey(level)).save(tmp_path / f"{name}.png")
    paths = tmp_path / "a.png", tmp_path / "b.png"
    assert demo(*image_model, "--input", *paths, "--output", tmp_path / "out") == 0
    first, second = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert (first["image_id"], first["file_name"]) == (1, str(paths[0]))
    assert [found["name"] for found in first["classes"]] == [
        "dark",
        "black",
        "middle",
        "light",
        "bright",
    ]
    assert [found["class"] for found in second["classes"]] == [5, 4, 3, 2, 1]
    scores = np.exp([-(((45 - level) / 25) ** 2) for level in np.linspace(0, 250, 6)])
    wanted = (scores / scores.sum())[[1, 0, 2, 3, 4]]
    assert [f["score"] for f in first["classes"]] == pytest.approx(wanted, abs=2e-6)
    drawn = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    assert drawn.shape[1] == 640 and (drawn[:400] == 45).all()  # enlarged, scores below
    assert has_color(drawn, "dark") and has_color(drawn, "black") and not has_color(drawn, "white")
    assert "2 images classified (0 skipped)" in capsys.readouterr().out


def test_top_and_bad_images(tmp_path, image_model, capsys):
    Image.fromarray(grey(100)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    paths = tmp_path / "b.png", tmp_path / "a.png"
    assert demo(*image_model, "--input", *paths, "--output", tmp_path / "out", "--top", 2) == 1
    (record,) = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert record["image_id"] == 2 and [f["name"] for f in record["classes"]][:1] == ["middle"]
    assert len(record["classes"]) == 2
    assert "Skipped: " in capsys.readouterr().err


def test_frames_of_a_video_are_classified_one_by_one(tmp_path, image_model):
    path = write_video(tmp_path / "a.mp4", [0] * 3 + [250] * 3)
    found = tmp_path / "found.json"
    output = ("--output", tmp_path / "out.mp4", "--predictions", found)
    assert demo(*image_model, "--video-input", path, *output) == 0
    records = json.loads(found.read_text())
    assert [r["classes"][0]["name"] for r in records] == ["black"] * 3 + ["white"] * 3
    assert [r["time"] for r in records] == pytest.approx([n / 25 for n in range(6)])
    frames, _ = read_video(tmp_path / "out.mp4")
    assert [has_color(f, "white") for f in frames] == [False] * 3 + [True] * 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--confidence-threshold", "0.5"), "--confidence-threshold is not for classifiers"),
        (("--opacity", "0.5"), "--opacity is not for classifiers"),
        (("--every", "2"), "--every is for videos"),
    ],
)
def test_flags_of_other_models_are_refused(tmp_path, image_model, flags, message):
    Image.fromarray(grey(100)).save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=message):
        demo(*image_model, "--input", tmp_path / "a.png", "--output", tmp_path / "out", *flags)


# ---- videos -------------------------------------------------------------------------------------

LEVELS = [0] * 20 + [250] * 20


def check_timeline(path, source, *, every):
    """The json of a video that turns from black to white at frame 20; a clip spans 7 frames."""
    found = json.loads(path.read_text())
    assert found["file_name"] == str(source)
    assert {c["name"] for c in found["classes"][:2]} == {"black", "white"}  # of 2 clips
    assert found["classes"][0]["score"] == pytest.approx(0.49, abs=0.02)
    timeline = found["over_time"]
    numbers = list(range(0, 40, every))
    assert [r["time"] for r in timeline] == pytest.approx([n / 25 for n in numbers])
    assert [r["begin"] for r in timeline] == pytest.approx([max(0, n - 6) / 25 for n in numbers])
    best = {n: r["classes"][0]["name"] for n, r in zip(numbers, timeline)}
    assert all(name == "black" for n, name in best.items() if n < 20)
    assert all(name == "white" for n, name in best.items() if n >= 26)
    assert all(len(r["classes"]) == 5 for r in timeline)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_video_is_classified_as_a_whole_and_over_time(tmp_path, video_model, kind, capsys):
    if kind == "file":
        source = write_video(tmp_path / "a.mp4", LEVELS)
    else:
        source = write_folder(tmp_path / "a", LEVELS)
    output, found = tmp_path / "out" / "drawn.mp4", tmp_path / "found.json"
    arguments = ("--video-input", source, "--output", output, "--predictions", found)
    assert demo(*video_model, *arguments, "--every", 2) == 0
    check_timeline(found, source, every=2)
    frames, times = read_video(output)
    assert times == pytest.approx([n / 25 for n in range(40)])
    assert len({frame.shape for frame in frames}) == 1
    whites = [has_color(frame, "white") for frame in frames]
    assert not any(whites[:20]) and all(whites[27:])
    printed = capsys.readouterr().out
    assert "%  black" in printed and "20 predictions on 40 frames" in printed


def test_without_every_a_clip_is_classified_four_times_in_its_length(tmp_path, video_model):
    source = write_folder(tmp_path / "a", LEVELS)
    found = tmp_path / "found.json"
    arguments = ("--video-input", source, "--output", tmp_path, "--predictions", found)
    assert demo(*video_model, *arguments) == 0
    check_timeline(found, source, every=1)  # 7 // 4
    assert (tmp_path / "a.mp4").is_file()


def test_one_frame_is_a_video(tmp_path, video_model):
    source = write_folder(tmp_path / "a", [200])
    found = tmp_path / "found.json"
    arguments = ("--video-input", source, "--output", tmp_path / "o.mkv", "--predictions", found)
    assert demo(*video_model, *arguments, "--top", 1) == 0
    content = json.loads(found.read_text())
    assert [c["name"] for c in content["classes"]] == ["bright"]
    (record,) = content["over_time"]
    assert record["classes"] == content["classes"] and record["time"] == record["begin"] == 0


def test_a_window_gives_what_the_model_says_of_those_frames_and_keeps_few(video_model):
    predictor = ClassifierPredictor(video_model[1], video_model[3])
    window = ClipWindow(predictor)
    levels = [(7 * n) % 250 for n in range(30)]
    assert window.span == 7
    for number, level in enumerate(levels):
        window.add(Frame(grey(level, (200, 100)), number))
        last = levels[max(0, number - 6) : number + 1]
        looped = [last[i % len(last)] for i in (0, 2, 4, 6)]
        wanted = predictor([grey(level) for level in looped for _ in range(2)])["scores"]
        np.testing.assert_allclose(window.predict()["scores"], wanted, atol=1e-5)
        assert window.begin == max(0, number - 6)
        assert len(window._frames) <= 7
    assert {tuple(frame.shape) for frame, _ in window._frames} == {(3, 16, 32)}


def test_of_a_damaged_video_the_frames_before_the_damage(tmp_path, video_model, capsys):
    source = write_folder(tmp_path / "a", LEVELS)
    (source / "frame_0030.png").write_bytes(b"damaged")
    output, found = tmp_path / "out.mp4", tmp_path / "found.json"
    arguments = ("--video-input", source, "--output", output, "--predictions", found)
    assert demo(*video_model, *arguments, "--every", 10) == 1
    content = json.loads(found.read_text())
    assert content["classes"] is None  # frame 30 is in the second clip
    assert len(content["over_time"]) == 3
    assert len(read_video(output)[0]) == 30
    assert "holds the 30 frames before that" in capsys.readouterr().err


def test_a_video_whose_clips_cannot_be_read_is_still_drawn(tmp_path, video_model, capsys):
    source = write_folder(tmp_path / "a", [100] * 7)
    (source / "frame_0004.png").write_bytes(b"damaged")
    output, found = tmp_path / "out.mp4", tmp_path / "found.json"
    arguments = ("--video-input", source, "--output", output, "--predictions", found)
    assert demo(*video_model, *arguments) == 1
    assert json.loads(found.read_text())["classes"] is None
    assert "as a whole cannot be classified" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--video-input", "nowhere.mp4"), "There is no video nowhere.mp4"),
        (("--video-input", "{folder}"), "has no pictures"),
        (("--video-input", "{video}", "--opacity", "0.5"), "--opacity is not for classifiers"),
        (("--input", "{video}/frame_0000.png"), "The model classifies videos"),
    ],
)
def test_bad_command_lines(tmp_path, video_model, flags, message):
    (tmp_path / "empty").mkdir()
    video = write_folder(tmp_path / "a", [100] * 3)
    places = {"{folder}": str(tmp_path / "empty"), "{video}": str(video)}
    for key, place in places.items():
        flags = [flag.replace(key, place) for flag in flags]
    with pytest.raises((ConfigError, DataError), match=message):
        demo(*video_model, *flags, "--output", tmp_path / "out")


def test_a_folder_is_no_video_for_a_model_of_images(tmp_path, image_model):
    source = write_folder(tmp_path / "a", [100] * 3)
    with pytest.raises(ConfigError, match=r"give --input .*/a"):
        demo(*image_model, "--video-input", source, "--output", tmp_path / "out")


# ---- bars ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 300, 1800])
def test_bars_are_as_long_as_their_scores(width):
    scores = [ClassScore(0, "a name that is much too long for this" * 3, 0.75)]
    strip = draw_scores(scores, width, "caption", lines=2)
    assert strip.shape[1] == width
    assert strip.shape == draw_scores([], width, "caption", lines=2).shape
    color = np.round(255 * np.array(class_color(0)))
    bar = (strip == color).all(-1).any(0).sum()
    empty = (strip == (235, 235, 240)).all(-1).any(0).sum()
    if width > 100:
        assert bar / (bar + empty) == pytest.approx(0.75, abs=0.02)
