"""tools/make_shapes_dataset.py makes clips of moving shapes, too."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("av", reason="PyAV is not installed")

from iwin_d2.data.video.records import load_video_list
from iwin_d2.errors import ConfigError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "make_shapes_dataset.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("make_clips", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_clips(tool, tmp_path, capsys):
    root = tmp_path / "moving"
    arguments = ["--task", "video_classification", "--num-train", "3", "--num-val", "2"]
    tool.main([str(root), *arguments, "--image-size", "32", "32", "--seed", "4"])
    shown = capsys.readouterr().out
    assert f"training: {root}/train.txt" in shown and f"classes: {root}/classes.txt" in shown
    videos = load_video_list(root / "val.txt", classes=root / "classes.txt")
    assert [record["file_name"] for record in videos] == [f"{root}/val/0000{i}.mp4" for i in (0, 1)]
    with pytest.raises(ConfigError, match="--image-size 32 64: clips are square"):
        tool.main([str(tmp_path / "other"), *arguments, "--image-size", "32", "64"])
