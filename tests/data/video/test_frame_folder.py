"""Folders of pictures as a source of frames."""

import numpy as np
import pytest
from video_files import shown_number, write_frames

from iwin_d2.data.video.decode import VideoFile
from iwin_d2.data.video.frame_folder import FrameFolder, open_video
from iwin_d2.errors import DataError


@pytest.mark.parametrize("first", [0, 1, 7])
@pytest.mark.parametrize("name", ["img_{:05d}.png", "img_{:05d}.jpg", "{}.png"])
def test_frames_in_the_order_of_their_numbers(tmp_path, first, name):
    folder = write_frames(tmp_path / "frames", 12, first, name)
    (folder / "notes.txt").write_text("beside the frames")
    with open_video(folder) as frames:
        assert isinstance(frames, FrameFolder) and len(frames) == 12
        read = frames.read([3, 11, 3, 0])
        assert read.shape == (4, 3, 24, 32)
        assert [shown_number(frame) for frame in read] == [3, 11, 3, 0]
        assert frames.read([5], resize=lambda frame: frame[:, ::2]).shape == (1, 3, 12, 32)


def test_the_same_interface_as_a_file():
    names = {name for name in vars(VideoFile) if not name.startswith("_")}
    assert names <= set(vars(FrameFolder))


def test_times(tmp_path):
    frames = FrameFolder(write_frames(tmp_path / "frames"), rate=10)
    assert frames.times.tolist() == pytest.approx([i / 10 for i in range(12)])
    assert frames.index_at([-1, 0.3, 0.39, 50]).tolist() == [0, 3, 3, 11]


def test_a_pattern_picks_one_row(tmp_path):
    write_frames(tmp_path / "frames", 4)
    folder = write_frames(tmp_path / "frames", 9, 1, "flow_x_{:05d}.jpg")
    with pytest.raises(DataError, match=r"two pictures for frame 1 \(.*pattern="):
        FrameFolder(folder)
    assert len(FrameFolder(folder, "img_{:05d}.png")) == 4
    assert len(FrameFolder(folder, "flow_x_%05d.jpg")) == 9
    with pytest.raises(DataError, match="no pictures called like frame_"):
        FrameFolder(folder, "frame_{:05d}.jpg")
    with pytest.raises(DataError, match="does not say where the number stands"):
        FrameFolder(folder, "img.jpg")


def test_bad_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty has no pictures whose name ends in a number"):
        FrameFolder(tmp_path / "empty")
    with pytest.raises(DataError, match="cannot be read"):
        FrameFolder(tmp_path / "none")
    gap = write_frames(tmp_path / "gap")
    (gap / "img_00005.png").unlink()
    with pytest.raises(DataError, match="gap has pictures 1 to 12, but none for frame 5"):
        FrameFolder(gap)


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_bad_pictures(tmp_path, content):
    folder = write_frames(tmp_path / "frames")
    picture = folder / "img_00004.png"
    picture.write_bytes(picture.read_bytes()[:100] if content is None else content)
    frames = FrameFolder(folder)
    assert shown_number(frames.read([2])[0]) == 2
    with pytest.raises(DataError, match=r"img_00004.png cannot be read as a picture \("):
        frames.read(np.arange(6))
    picture.unlink()
    with pytest.raises(DataError, match=r"img_00004.png cannot be read as a picture \("):
        frames.read([3])


def test_frames_that_there_are_not(tmp_path):
    with pytest.raises(IndexError, match="frames 0 to 11"):
        FrameFolder(write_frames(tmp_path / "frames")).read([12])
