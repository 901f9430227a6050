"""The benchmark of loading clips reads the same frames in each way."""

import sys

import pytest
import torch

pytest.importorskip("av", reason="PyAV is not installed")

from iwin_d2.benchmark import loader, long_list
from iwin_d2.benchmark.cases import CASES
from iwin_d2.benchmark.long_list import write_long_list


@pytest.fixture
def small(monkeypatch):
    for name, value in {"_WIDTH": 96, "_HEIGHT": 64, "_SECONDS": 3, "_CLIPS": 5}.items():
        monkeypatch.setattr(loader, name, value)


def test_each_way_gives_the_same_clips(small, tmp_path):
    ours, whole = (
        loader._training_mapper(**options) for options in ({}, {"open_video": loader._WholeFile})
    )
    for file in loader._write_clips(tmp_path):
        clips = []
        for mapper in (ours, whole):
            torch.manual_seed(0)
            item = mapper({"file_name": str(file), "label": 0})
            assert item["num_frames"] == 90
            clips.append(item["video"])
        assert torch.equal(*clips)


def test_the_table_of_clips(small, tmp_path):
    threads = torch.get_num_threads()
    lines = loader._time_clips(loader._write_clips(tmp_path), rounds=1)
    assert lines[0].endswith("files of 96x64, 3 s")
    assert "| PyAV: the whole file to an array, then indexed |" in "\n".join(lines)
    assert sum("1.00x" in line for line in lines) == 1
    assert sum("(1.5x)" in line for line in lines) == 1
    assert torch.get_num_threads() == threads


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_long_list(tmp_path):
    path = write_long_list(tmp_path, lines=2000)
    assert len(path.read_text().splitlines()) == 2000
    found = long_list._load(str(path), num_workers=1)  # which measure_list calls in a new process
    assert found["seconds"] > 0 and found["together"] > 10
    assert found["peak"] >= found["imported"] > 10


def test_it_is_a_case():
    assert "loader" in CASES
