"""Frames by number: the same as decoding everything, without decoding everything."""

import os

import numpy as np
import pytest
import torch
from video_files import (
    needs_h264,
    read_everything,
    shown_number,
    write_sound,
    write_video,
)

from iwin_d2.data.video.decode import VideoFile
from iwin_d2.data.video.frame_decoder import FrameDecoder
from iwin_d2.errors import DataError

pytestmark = needs_h264

VARIABLE = np.cumsum([20, 20, 700, 5] * 10).tolist()  # milliseconds
# name of the file, how it is written
KINDS = {
    "plain.mp4": {},
    "no_b_frames.mp4": {"b_frames": 0},
    "one_keyframe.mp4": {"keyframes": 250},
    "only_keyframes.mp4": {"keyframes": 1, "b_frames": 0},
    "open_groups.mp4": {"options": {"x264-params": "open-gop=1"}},
    "gradual_refresh.mp4": {"options": {"x264-params": "intra-refresh=1"}},
    "variable_rate.mp4": {"ticks": VARIABLE},
    "variable_rate.mkv": {"ticks": VARIABLE},
    "odd_size.mp4": {"height": 49, "width": 67, "pix_fmt": "yuv444p"},
    "one_frame.mp4": {"num_frames": 1},
    "no_duration.mkv": {"container_options": {"live": "1"}},
    "fragments.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "starts_late.mp4": {"ticks": [5000 + 40 * i for i in range(40)]},
    "starts_late.mkv": {"ticks": [5000 + 40 * i for i in range(40)]},
    "transport.ts": {},
    "raw.h264": {"container_format": "h264"},
    "interlaced.mkv": {"height": 64, "options": {"flags": "+ildct+ilme", "x264-params": "tff=1"}},
    "mpeg1.mpg": {"codec": "mpeg1video", "b_frames": 2},
    "mpeg4.mp4": {"codec": "mpeg4", "b_frames": 2},
    "mpeg4.avi": {"codec": "mpeg4", "b_frames": 2},
    "motion_jpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "b_frames": 0},
}


def numbers_of(frames):
    return [shown_number(frame) for frame in frames]


@pytest.fixture
def plain(tmp_path):
    return write_video(tmp_path / "plain.mp4")


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_those_of_decoding_everything(tmp_path, name):
    path = write_video(tmp_path / name, **KINDS[name])
    everything = read_everything(path)
    with VideoFile(path) as video:
        assert len(video) == len(everything) == KINDS[name].get("num_frames", 40)
        last = len(video) - 1
        for indices in (range(len(video)), [last], [last // 2], [last, 0, last // 3, last, 0]):
            frames = video.read(indices)
            assert frames.dtype == torch.uint8
            assert frames.shape[:2] == (len(indices), 3)
            assert numbers_of(frames) == list(indices)
            for frame, index in zip(frames, indices):
                np.testing.assert_array_equal(frame.permute(1, 2, 0), everything[index])


def test_random_access_in_any_order(plain):
    everything = read_everything(plain)
    random = np.random.default_rng(0)
    with VideoFile(plain) as video:
        for _ in range(10):
            indices = random.integers(0, 40, random.integers(1, 8))
            expected = np.stack([everything[i] for i in indices])
            np.testing.assert_array_equal(video.read(indices).permute(0, 2, 3, 1), expected)


@pytest.mark.parametrize("angle", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_frames_are_turned_upright(tmp_path, angle, mirrored):
    path = write_video(tmp_path / "turned.mp4", 3, rotation=(angle, mirrored))
    stored = read_everything(write_video(tmp_path / "stored.mp4", 3))
    frames = VideoFile(path).read(range(3))
    for frame, pixels in zip(frames, stored):
        upright = np.rot90(pixels, angle // 90)
        upright = upright[:, ::-1] if mirrored else upright
        np.testing.assert_array_equal(frame.permute(1, 2, 0), upright)


def test_frames_that_an_edit_list_cuts_away_do_not_count(tmp_path):
    path = write_video(tmp_path / "cut.mp4", ticks=[40 * i - 400 for i in range(40)])
    with VideoFile(path) as video:
        assert numbers_of(video.read(range(len(video)))) == list(range(10, 40))
        assert numbers_of(video.read([0])) == [10]
        assert video.times[0] == 0


def test_times_of_variable_rate(tmp_path):
    path = write_video(tmp_path / "variable.mp4", ticks=VARIABLE)
    with VideoFile(path) as video:
        np.testing.assert_allclose(video.times, (np.array(VARIABLE) - VARIABLE[0]) / 1000)
        # Shown at 0, 0.020, 0.720 and 0.725 s.
        assert video.index_at([-1, 0, 0.019, 0.02, 0.5, 0.7201, 1e9]).tolist() == [
            *(0, 0, 0, 1, 1, 2, 39)
        ]
        assert numbers_of(video.read(video.index_at([0.5, 0.7201]))) == [1, 2]


class Recorded(FrameDecoder):
    """Notes from which packet to which one is decoded."""

    def __init__(self, *args):
        self.spans = []
        super().__init__(*args)

    def _feed(self, *args, **options):
        start = self._next
        yield from super()._feed(*args, **options)
        self.spans.append((start, self._next))


def test_no_more_is_decoded_than_from_the_keyframe_on(tmp_path):
    path = write_video(tmp_path / "long.mp4", 200, keyframes=50)
    decoder = Recorded(path)
    keys = decoder.index.key_positions.tolist()
    assert decoder.spans == [] and len(keys) >= 4
    assert [number for number, _ in decoder.decode(np.array([60, 62, 190]))] == [60, 62, 190]
    (first, first_end), (second, second_end) = decoder.spans
    positions = decoder.index.positions
    assert first == max(key for key in keys if key <= positions[60])
    assert second == max(key for key in keys if key <= positions[190])
    assert first_end <= 62 + 20 and second_end <= 200
    decoder.close()


def test_only_what_is_asked_for_is_converted_and_held(plain):
    class Counting:
        def __init__(self, inner):
            self.inner, self.calls = inner, 0

        def reformat(self, *args, **options):
            self.calls += 1
            return self.inner.reformat(*args, **options)

    with VideoFile(plain) as video:
        video._reformatter = Counting(video._reformatter)
        sizes = []

        def halve(frame):
            sizes.append(tuple(frame.shape))
            return frame[:, ::2, ::2]

        frames = video.read([3, 30, 3], resize=halve)
        assert video._reformatter.calls == 2
        assert sizes == [(3, 48, 64)] * 2
        assert frames.shape == (3, 3, 24, 32) and numbers_of(frames) == [3, 30, 3]


def test_one_thread_decodes(plain):
    with VideoFile(plain) as video:
        assert video._decoder._stream.codec_context.thread_count == 1
    with VideoFile(plain, num_threads=3) as video:
        assert video._decoder._stream.codec_context.thread_count == 3
        assert numbers_of(video.read([5, 31])) == [5, 31]


@pytest.mark.parametrize("failing", ["_seek", "_land"])
def test_containers_that_cannot_seek_are_read_from_the_beginning(plain, monkeypatch, failing):
    monkeypatch.setattr(FrameDecoder, failing, lambda self, key: False)
    with VideoFile(plain) as video:
        assert numbers_of(video.read([39, 5, 20])) == [39, 5, 20]


def test_keyframes_that_are_none_cost_time_and_nothing_else(plain):
    everything = read_everything(plain)
    with VideoFile(plain) as video:
        index = video._decoder.index
        # As if the file called frame 5, or thereabouts, a keyframe.
        position = int(np.flatnonzero(index.positions == 5)[0])
        index.key_pts[1], index.key_positions[1] = index.pts[position], 5
        frames = video.read([9, 10])
        np.testing.assert_array_equal(frames[1].permute(1, 2, 0), everything[10])


def test_of_several_sizes_the_first_one_counts(tmp_path):
    small = write_video(tmp_path / "small.ts", 10).read_bytes()
    large = write_video(tmp_path / "large.ts", 10, height=96, width=128).read_bytes()
    path = tmp_path / "both.ts"
    path.write_bytes(small + large)
    with VideoFile(path) as video:
        frames = video.read([2, 15])
        assert frames.shape == (2, 3, 48, 64) and numbers_of(frames) == [2, 5]
        assert video.read([15]).shape == (1, 3, 96, 128)


@pytest.mark.parametrize("indices", [[], [-1], [40], [3, 99]])
def test_frames_that_there_are_not(plain, indices):
    with VideoFile(plain) as video, pytest.raises(IndexError, match="frames 0 to 39"):
        video.read(indices)


def test_titles_in_any_encoding(plain):
    written = plain.read_bytes()
    assert b"Lavf" in written  # the name of the muxer, stored like a title
    plain.write_bytes(written.replace(b"Lavf", b"L\xe4vf"))
    with VideoFile(plain) as video:
        assert numbers_of(video.read([7])) == [7]


# ---- bad files ----------------------------------------------------------------------------------


def cut(path, share, **options):
    content = write_video(path, 60, **options).read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def of_unknown_codec(path):
    write_video(path)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"xyz1"))


BAD = {
    "no file": (lambda p: p, r"There is no video .*: correct the path\."),
    "a folder": (lambda p: p.mkdir(), "is not a file, so no video"),
    "a pipe": (lambda p: os.mkfifo(p), "is not a file, so no video"),
    "zero bytes": (lambda p: p.write_bytes(b""), r"cannot be read as a video \(the file is empty"),
    "text": (lambda p: p.write_text("no video\n" * 50), "cannot be read as a video"),
    "cut, no index": (lambda p: cut(p, 0.6), "cannot be read as a video .*it is cut off"),
    "cut, with index": (
        lambda p: cut(p, 0.6, container_options={"movflags": "faststart"}),
        r"is cut off after frame \d+ of 60: fetch or export it anew",
    ),
    "unknown codec": (of_unknown_codec, "is of a codec that this FFmpeg has no decoder for"),
    "sound": (write_sound, "has no video stream, only sound"),
    "no frames": (lambda p: write_video(p, 0), "has no frames"),
    "no frames, avi": (
        lambda p: write_video(p, 0, codec="mpeg4", container_format="avi"),
        "has no frames",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_refused_in_a_sentence(tmp_path, kind):
    make, sentence = BAD[kind]
    path = tmp_path / "video.mp4"
    make(path)
    with pytest.raises(DataError, match=sentence) as raised:
        VideoFile(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_that_breaks_half_way(tmp_path):
    path = write_video(tmp_path / "video.mp4", 90, height=96, width=96, keyframes=30)
    content = bytearray(path.read_bytes())
    decoder = FrameDecoder(path)
    packet = list(decoder._stream.index_entries)[45]
    decoder.close()
    for i in range(packet.pos + 4, packet.pos + packet.size):  # behind its length
        content[i] ^= 0xFF
    path.write_bytes(content)
    with VideoFile(path) as video:
        assert len(video) == 90
        assert numbers_of(video.read([0, 20])) == [0, 20]  # before the damage
        assert numbers_of(video.read([75])) == [75]  # after it, from the next keyframe on
        with pytest.raises(DataError, match=r"cannot be decoded at frame \d+ of 90 \(.*anew"):
            video.read(range(30, 60))
        assert numbers_of(video.read([3])) == [3]  # the file can still be read


def test_random_damage_ends_in_frames_or_a_sentence(tmp_path):
    """Whatever bytes are wrong: no other error, no crash, no hang."""
    whole = write_video(tmp_path / "whole.mp4", 30).read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "damaged.mp4"
    read = refused = 0
    for _ in range(150):
        content = bytearray(whole)
        for start in random.integers(0, len(whole), random.integers(1, 12)):
            length = int(random.choice([1, 4, 60]))
            content[start : start + length] = random.bytes(len(content[start : start + length]))
        path.write_bytes(content)
        try:
            with VideoFile(path) as video:
                last = len(video) - 1
                assert video.read([last, last // 2]).shape[:2] == (2, 3)
            read += 1
        except DataError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
    assert read > 10 and refused > 10
