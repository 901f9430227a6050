"""The checker of video lists finds everything in one pass."""

import importlib.util
import json
from pathlib import Path

import pytest
from video_files import needs_h264, write_frames, write_sound, write_video

from iwin_d2.data.video.check import VideoCheck, describe_video_summary, inspect_video
from iwin_d2.errors import ConfigError

pytestmark = needs_h264

FASTSTART = {"container_options": {"movflags": "faststart"}}


@pytest.fixture(scope="module")
def tool():
    path = Path(__file__).resolve().parents[3] / "tools/check_dataset.py"
    spec = importlib.util.spec_from_file_location("check_dataset_for_videos", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A list with everything wrong that there is, and a good one."""
    root = tmp_path_factory.mktemp("videos")
    for name, frames in (("a", 5), ("b", 9), ("c", 30)):
        write_video(root / f"{name}.mp4", frames)
    write_frames(root / "frames", 7)
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("no video")
    write_sound(root / "sound.mp4")
    write_video(root / "none.avi", 0, codec="mpeg4")
    cut = write_video(root / "cut.mp4", 60, **FASTSTART)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    half = bytearray(write_video(root / "half.mp4", 60, **FASTSTART).read_bytes())
    for i in range(len(half) // 2, len(half) // 2 + 800):
        half[i] ^= 0xFF
    (root / "half.mp4").write_bytes(half)
    (root / "good.txt").write_text("a.mp4 0\nb.mp4 2\nframes 1\n")
    lines = [
        *("a.mp4 0", "b.mp4 1", "c.mp4", "empty.mp4 0", "text.mp4 1", "sound.mp4 2", "none.avi 0"),
        *("cut.mp4 1", "half.mp4 2", "gone.mp4 0", "frames 3", "a.mp4 0", "b.mp4 2", "c.mp4,1"),
    ]
    (root / "bad.txt").write_text("\n".join(lines))
    return root


def check(folder, depth, name="bad.txt", **options):
    found = VideoCheck(folder / name, folder, num_classes=3, **options)
    return found, list(found.problems(depth, workers=2))


def lines_of(problems, kind):
    return [int(p.message.split("line ")[1].split(":")[0]) for p in problems if p.kind == kind]


@pytest.mark.parametrize("depth", ["exists", "open", "decode"])
def test_everything_is_found_in_one_pass(folder, depth):
    found, problems = check(folder, depth)
    assert lines_of(problems, "line") == [3]
    assert lines_of(problems, "label-values") == [11]
    assert lines_of(problems, "duplicate-file") == [12, 13]
    severities = [p.severity for p in problems if p.kind == "duplicate-file"]
    assert severities == ["warning", "error"]  # the second one with another label
    assert [p.kind for p in problems].count("separator") == 1
    assert lines_of(problems, "video-missing") == [10]
    expected = {"exists": [], "open": [4, 5, 6, 7, 8], "decode": [4, 5, 6, 7, 8, 9]}[depth]
    assert lines_of(problems, "video-damaged") == expected
    assert all(str(folder) in p.message and p.message.endswith(".") for p in problems)
    assert found.summary["videos"] == 13


@pytest.mark.parametrize("depth", ["exists", "open", "decode"])
def test_nothing_is_wrong_with_a_good_list(folder, depth):
    found, problems = check(folder, depth, "good.txt")
    assert problems == []
    assert [c["videos"] for c in found.summary["classes"]] == [1, 1, 1]
    lengths = {} if depth == "exists" else {"least": 5, "median": 7, "most": 9}
    assert found.summary["lengths"] == lengths
    lines = describe_video_summary(found.summary)
    assert lines[0] == "3 videos" and lines[-1].split() == ["2", "1"]


def test_classes_without_videos_and_lists_that_cannot_be_read(folder):
    found = VideoCheck(folder / "good.txt", folder, num_classes=5)
    kinds = [(p.kind, p.severity) for p in found.problems("exists")]
    assert kinds == [("class-absent", "warning")] * 2
    for path in (folder / "none.txt", folder):
        (problem,) = VideoCheck(path, folder).problems()
        assert problem.kind == "file" and problem.fatal
    (folder / "empty.txt").write_text("\n")
    assert [p.kind for p in VideoCheck(folder / "empty.txt").problems()] == ["empty"]


def test_what_breaks_half_way_says_where(folder):
    length, ((severity, text),) = inspect_video(str(folder / "half.mp4"), "decode")
    assert (length, severity) == (60, "error")
    assert "half.mp4 has 60 frames, but cannot be decoded after frame" in text


def test_damaged_pictures_of_a_folder(folder, tmp_path):
    frames = write_frames(tmp_path / "frames", 4)
    (frames / "img_00002.png").write_bytes(b"")
    assert inspect_video(str(frames)) == (4, [])
    length, ((_, text),) = inspect_video(str(frames), "decode")
    assert length == 4 and "img_00002.png cannot be read as a picture (it is empty)" in text


def test_the_tool(folder, tool, capsys):
    output = folder / "findings.json"
    bad, good = str(folder / "bad.txt"), str(folder / "good.txt")
    arguments = [bad, str(folder), "--videos", "--num-classes", "3", "--json", str(output)]
    assert tool.main([*arguments, "--decode"]) == 1
    shown = capsys.readouterr().out
    assert "video-damaged (videos that cannot be read, or not to their end): 6" in shown
    assert "    line 10: There is no video" in shown
    report = json.loads(output.read_text())
    assert report["list"] == bad and report["summary"]["videos"] == 13
    assert sum(p["kind"] == "video-damaged" for p in report["problems"]) == 6
    assert tool.main([good, str(folder), "--videos"]) == 0
    assert "21 frames; frames a video: least 5, median 7, most 9" in capsys.readouterr().out
    for flags in (["--videos", "--no-images"], ["--decode"]):
        with pytest.raises(ConfigError, match=flags[-1]):
            tool.main([good, str(folder), *flags])
