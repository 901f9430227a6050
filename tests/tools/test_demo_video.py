"""tools/demo.py on video files, with a detector that finds bright pixels."""

import json
import resource
import struct
import sys
from fractions import Fraction

import numpy as np
import pytest
from bright_demo import bright_box, demo, write_image, write_weights

from iwin_d2.engine import video as video_module
from iwin_d2.engine.video import VideoReader, write_to
from iwin_d2.errors import ConfigError, DataError

av = pytest.importorskip("av", reason="PyAV is not installed")


@pytest.fixture
def weights(tmp_path):
    return write_weights(tmp_path / "weights.pth")


def moving_box(count, size=(60, 40)):
    """Frames in which a bright box goes to the right."""
    return [bright_box(size, (5 + n, 5, 25 + n, 25)) for n in range(count)]


def write_video(path, frames, *, rate=Fraction(10), times=None, faststart=False, aspect=None):
    """An H.264 file; `times` are in hundredths of a second."""
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "10"})
        stream.height, stream.width = frames[0].shape[:2]
        odd = stream.height % 2 or stream.width % 2
        stream.pix_fmt = "yuv444p" if odd else "yuv420p"
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if times:
            stream.codec_context.time_base = Fraction(1, 100)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_video(path):
    """The frames of a file, their times in seconds, and its stream."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        return [f.to_ndarray(format="rgb24") for f in frames], [f.time for f in frames], stream


def turn(path, matrix):
    """Write a display matrix into the header of an mp4."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40  # behind version, times, duration, layer and volume
    data[start : start + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)


def files(folder):
    return {path.name for path in folder.iterdir()} - {"weights.pth"}


# ---- whole videos -------------------------------------------------------------------------------


def test_a_video_is_drawn_with_its_times_and_listed(tmp_path, weights, capsys):
    path = write_video(tmp_path / "clip.mp4", moving_box(12))
    found = tmp_path / "lists" / "found.json"
    output = tmp_path / "out" / "drawn.mp4"
    arguments = ("--weights", weights, "--video-input", path, "--output", output)
    assert demo(*arguments, "--predictions", found, "--batch-size", "5") == 0
    frames, times, stream = read_video(output)
    assert times == pytest.approx([n / 10 for n in range(12)])
    assert (stream.average_rate, stream.codec_context.name) == (10, "h264")
    assert frames[0].shape == (426, 640, 3)  # enlarged, as pictures are
    records = json.loads(found.read_text())
    assert [record["image_id"] for record in records] == list(range(1, 13))
    assert [record["time"] for record in records] == pytest.approx(times)
    for number, record in enumerate(records):
        assert record["bbox"] == pytest.approx([5 + number, 5, 20, 20], abs=1.5)
        assert record["category_id"] == 18
    assert "12 predictions on 12 frames" in capsys.readouterr().out
    assert files(tmp_path / "out") == {"drawn.mp4"}


def test_batches_and_threads_change_nothing(tmp_path, weights):
    path = write_video(tmp_path / "clip.mp4", moving_box(7))
    for name, flags in (("a", ("--workers", 0)), ("b", ("--workers", 3, "--batch-size", 3))):
        output = ("--output", tmp_path / f"{name}.mkv", "--predictions", tmp_path / f"{name}.json")
        assert demo("--weights", weights, "--video-input", path, *output, *flags) == 0
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()
    for one, other in zip(read_video(tmp_path / "a.mkv")[0], read_video(tmp_path / "b.mkv")[0]):
        assert np.abs(one.astype(int) - other).max() <= 2


def test_uneven_times_and_odd_rates_are_kept(tmp_path, weights):
    times = [0, 3, 20, 21, 60, 61]
    path = write_video(tmp_path / "uneven.mp4", moving_box(6), times=times)
    demo("--weights", weights, "--video-input", path, "--output", tmp_path / "uneven_out.mp4")
    assert read_video(tmp_path / "uneven_out.mp4")[1] == pytest.approx([t / 100 for t in times])
    ntsc = Fraction(30000, 1001)
    path = write_video(tmp_path / "ntsc.mp4", moving_box(6), rate=ntsc)
    demo("--weights", weights, "--video-input", path, "--output", tmp_path / "ntsc_out.mp4")
    assert read_video(tmp_path / "ntsc_out.mp4")[2].average_rate == ntsc


@pytest.mark.parametrize(
    ("matrix", "size", "box"),
    [
        ((0, 1, 0, -1, 0, 0, 0, 0), (40, 60), [20, 5, 10, 20]),  # a quarter clockwise
        ((-1, 0, 0, 0, -1, 0, 0, 0), (60, 40), [35, 20, 20, 10]),
        ((0, -1, 0, 1, 0, 0, 0, 0), (40, 60), [10, 35, 10, 20]),
    ],
)
def test_turned_videos_come_out_upright(tmp_path, weights, matrix, size, box):
    path = write_video(tmp_path / "clip.mp4", [bright_box(box=(5, 10, 25, 20))] * 3)
    turn(path, [value << 16 for value in matrix] + [1 << 30])
    found = tmp_path / "found.json"
    arguments = ("--weights", weights, "--video-input", path, "--output", tmp_path / "out.mp4")
    assert demo(*arguments, "--predictions", found) == 0
    assert json.loads(found.read_text())[0]["bbox"] == pytest.approx(box, abs=1.5)
    width, height = size
    frame = read_video(tmp_path / "out.mp4")[0][0]
    assert (frame.shape[1] > frame.shape[0]) == (width > height)


def test_odd_sizes_and_pixels_that_are_not_square(tmp_path, weights):
    frames = moving_box(2, size=(701, 501))
    path = write_video(tmp_path / "odd.mp4", frames, aspect=Fraction(4, 3))
    demo("--weights", weights, "--video-input", path, "--output", tmp_path / "out.mp4")
    drawn, _, stream = read_video(tmp_path / "out.mp4")
    assert drawn[0].shape == (502, 702, 3)
    assert stream.codec_context.sample_aspect_ratio == Fraction(4, 3)
    assert stream.codec_context.pix_fmt == "yuv420p"


def test_the_output_may_be_a_folder_and_other_containers(tmp_path, weights):
    path = write_video(tmp_path / "clip.mp4", moving_box(2))
    source = ("--weights", weights, "--video-input", path, "--output")
    demo(*source, tmp_path / "new")
    assert files(tmp_path / "new") == {"clip.mp4"}
    for ending in (".mkv", ".MOV"):
        output = tmp_path / f"drawn{ending}"
        demo(*source, output)
        assert len(read_video(output)[0]) == 2


def test_colours_survive_and_other_encoders_serve(tmp_path, monkeypatch):
    frame = np.zeros((64, 96, 3), dtype=np.uint8)
    frame[:, :32], frame[:, 32:64], frame[:, 64:] = (220, 30, 20), (20, 200, 40), (240, 240, 240)
    for encoders in (("libx264",), ("no_such_encoder", "mpeg4")):
        monkeypatch.setattr(video_module, "_ENCODERS", encoders)
        path = tmp_path / "colours.mp4"
        with write_to(path, Fraction(30000, 1001)) as writer:
            for number in range(3):
                writer.add(frame, number * Fraction(1001, 30000))
        with VideoReader(path) as video:
            frames = list(video)
        assert [float(f.time) for f in frames] == pytest.approx([0, 0.033367, 0.066733], abs=1e-4)
        for column in (16, 48, 80):
            error = frames[0].pixels[32, column].astype(int) - frame[32, column]
            assert np.abs(error).max() <= 6


# ---- videos that are damaged or none -------------------------------------------------------------


def test_a_video_cut_off_gives_the_frames_before_that(tmp_path, weights, capsys):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (40, 60, 3), dtype=np.uint8) for _ in range(30)]
    path = write_video(tmp_path / "clip.mp4", frames, faststart=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    output, found = tmp_path / "out.mp4", tmp_path / "found.json"
    arguments = ("--weights", weights, "--video-input", path, "--output", output)
    assert demo(*arguments, "--predictions", found, "--confidence-threshold", 0) == 1
    count = len(read_video(output)[0])
    assert 5 < count < 25
    printed = capsys.readouterr()
    assert f"cannot be decoded from frame {count + 1} of 30 on" in printed.err
    assert f"out.mp4 holds the {count} frames before that" in printed.err
    assert f"on {count} frames" in printed.out
    assert len(json.loads(found.read_text())) == count


def test_a_video_that_ends_too_early_is_warned_of(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(
        video_module.logger, "warning", lambda text, *values: warnings.append(text % values)
    )
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (40, 60, 3), dtype=np.uint8) for _ in range(30)]
    for name, cut in (("clip.mp4", False), ("clip.mkv", True)):
        path = write_video(tmp_path / name, frames)
        if cut:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with VideoReader(path) as video:
            count = len(list(video))
            assert video.problem is None
        assert len(warnings) == cut
    assert 5 < count < 25
    assert f"clip.mkv ends after frame {count} " in warnings[0]
    assert "promises about 30 frames" in warnings[0]


def test_what_is_no_video_is_refused_before_the_model_is_built(tmp_path):
    output = ("--output", tmp_path / "out.mp4")
    (tmp_path / "text.mp4").write_text("no video" * 100)
    (tmp_path / "empty.mp4").touch()
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for name, sentence in (
        ("text.mp4", r"text\.mp4 cannot be read as a video \(Invalid data"),
        ("empty.mp4", r"empty\.mp4 cannot be read as a video \(the file is empty\)"),
        ("sound.wav", r"sound\.wav has no video stream"),
        ("nowhere.mp4", r"no video .*nowhere\.mp4"),
    ):
        with pytest.raises(DataError, match=sentence):  # and not that there are no weights
            demo("--video-input", tmp_path / name, *output)
    assert not (tmp_path / "out.mp4").exists()


def test_bad_calls_are_refused(tmp_path, weights):
    path = write_video(tmp_path / "clip.mp4", moving_box(2))
    source = ("--weights", weights, "--video-input", path)
    with pytest.raises(ConfigError, match=r"out\.avi is no name for a video.*\.mp4"):
        demo(*source, "--output", tmp_path / "out.avi")
    with pytest.raises(ConfigError, match="is the input itself"):
        demo(*source, "--output", tmp_path)
    with pytest.raises(ConfigError, match="set --output"):
        demo(*source, "--output", path / "out.mp4")
    with pytest.raises(DataError, match=r"clip\.mp4 looks like a video: .*--video-input"):
        demo("--weights", weights, "--input", path, "--output", tmp_path / "out")
    with pytest.raises(SystemExit):
        demo(*source, "--input", path, "--output", tmp_path / "out.mp4")


def test_without_pyav_a_sentence_says_how_to_get_it(tmp_path, weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"pip install 'iwin_d2\[video\]'"):
        demo("--weights", weights, "--video-input", "clip.mp4", "--output", tmp_path / "out.mp4")
    image = write_image(tmp_path / "in" / "photo.png")
    assert demo("--weights", weights, "--input", image, "--output", tmp_path / "out") == 0


# ---- written whole or not at all ----------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_run_leaves_nothing(tmp_path, weights, monkeypatch, workers):
    path = write_video(tmp_path / "clip.mp4", moving_box(8))
    folder = tmp_path / "out"
    arguments = ("--weights", weights, "--video-input", path, "--output", folder / "drawn.mp4")
    arguments += ("--predictions", folder / "found.json", "--workers", workers)
    demo(*arguments)
    before = (folder / "drawn.mp4").read_bytes()
    detector = sys.modules["bright_detector"].BrightDetector
    forward, calls = detector.forward, []

    def interrupt(self, batch):
        calls.append(len(batch))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return forward(self, batch)

    monkeypatch.setattr(detector, "forward", interrupt)
    with pytest.raises(KeyboardInterrupt):
        demo(*arguments)
    assert files(folder) == {"drawn.mp4", "found.json"}
    assert (folder / "drawn.mp4").read_bytes() == before


def test_a_full_disk_is_said(tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    rng = np.random.default_rng(0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limit[1]))
    try:
        with (
            pytest.raises(DataError, match=r"out\.mp4 cannot be written .*free some space"),
            write_to(tmp_path / "out.mp4", Fraction(10)) as writer,
        ):
            for number in range(100):
                noise = rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)
                writer.add(noise, Fraction(number, 10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert files(tmp_path) == set()
