"""Real files of every odd kind: the frames that decoding everything gives, or one sentence."""

import re
from pathlib import Path

import numpy as np
import pytest
from video_files import read_everything

from iwin_d2.data.video.decode import VideoFile
from iwin_d2.errors import DataError

FOLDER = Path(__file__).resolve().parents[4] / "shared" / "realdata" / "videos_odd"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the real videos are not there")

REFUSED = {
    "broken_audio_only.mp4": "has no video stream, only sound",
    "broken_text.mp4": r"cannot be read as a video \(Invalid data",
    "broken_truncated_no_moov.mp4": r"cannot be read as a video \(Invalid data",
    "broken_truncated_opens.mp4": "is cut off after frame 106 of 280",
    "broken_zero_byte.mp4": r"cannot be read as a video \(the file is empty\)",
}
# Opens; only frames of its sound parts can be read.
DAMAGED = ("broken_damaged_middle.mp4", "real_corrupted.mp4")


def listed():
    """Name -> (frames, (width, height) as shown), by the folder's own table."""
    if not FOLDER.is_dir():
        return {}
    rows = {}
    for line in (FOLDER / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 8 and cells[6].isdigit():
            shown = re.search(r"\((\d+)x(\d+)\)", cells[7]) or re.match(r"(\d+)x(\d+)", cells[4])
            rows[cells[0]] = int(cells[6]), tuple(map(int, shown.groups()))
    return rows


def test_every_file_is_accounted_for():
    files = {path.name for path in FOLDER.iterdir()} - {"README.md"}
    assert files == {*listed(), *REFUSED, *DAMAGED}


@pytest.mark.parametrize("name", listed())
def test_frames_are_those_listed(name):
    count, (width, height) = listed()[name]
    start = int(np.random.default_rng(len(name)).integers(count))
    choices = [start, count - 1, 0], [(start + 2 * i) % count for i in range(4)]
    everything = read_everything(FOLDER / name, only={*choices[0], *choices[1]})
    with VideoFile(FOLDER / name) as video:
        assert len(video) == count == len(everything)
        for indices in choices:
            frames = video.read(indices)
            assert frames.shape == (len(indices), 3, height, width)
            for frame, index in zip(frames, indices):
                np.testing.assert_array_equal(frame.permute(1, 2, 0), everything[index])


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_are_refused(name):
    with pytest.raises(DataError, match=f"{name} {REFUSED[name]}"):
        VideoFile(FOLDER / name)


@pytest.mark.parametrize("name", DAMAGED)
def test_files_that_break_half_way(name):
    with VideoFile(FOLDER / name) as video:
        assert video.read(range(20)).shape[0] == 20
        with pytest.raises(
            DataError, match=rf"{name} cannot be decoded at frame \d+ of {len(video)}"
        ):
            video.read(range(len(video)))
