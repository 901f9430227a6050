"""Frames of clips, by the recipe's formulas."""

import math

import numpy as np
import pytest
import torch

from iwin_d2.data.video.sampling import RandomClip, RandomSegments, SpacedClips, SpacedSegments


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("length", [63, 64, 100, 280, 300, 12345])
def test_test_clips_begin_where_the_recipe_says(length):
    clips = SpacedClips()(length)
    assert clips.shape == (4, 32) and clips.dtype == np.int64
    assert clips[:, 0].tolist() == [math.floor((i + 0.5) * (length - 63) / 4) for i in range(4)]
    assert (np.diff(clips, axis=1) == 2).all()
    assert clips.min() >= 0 and clips.max() < length


@pytest.mark.parametrize("sampler", [SpacedClips(), RandomClip()])
@pytest.mark.parametrize("length", [1, 2, 31, 62])
def test_a_short_video_starts_at_its_beginning_and_loops(sampler, length):
    for clip in sampler(length):
        assert clip.tolist() == [2 * i % length for i in range(32)]


def test_a_training_clip_is_anywhere_in_the_video():
    clips = np.concatenate([RandomClip()(70) for _ in range(400)])
    assert clips.shape == (400, 32)
    assert (np.diff(clips, axis=1) == 2).all()
    assert set(clips[:, 0].tolist()) == set(range(8))  # 0 to 70 - 63: all that have room
    assert clips.max() == 69


def test_other_clips():
    assert SpacedClips(num_clips=1, num_frames=4, stride=3)(20).tolist() == [[5, 8, 11, 14]]
    assert RandomClip(num_frames=3, stride=5)(11).tolist() == [[0, 5, 10]]


@pytest.mark.parametrize("length", [1, 5, 8, 12, 37, 1000])
def test_segments_have_one_frame_each(length):
    drawn = np.concatenate([RandomSegments(8)(length) for _ in range(300)])
    middle = SpacedSegments(num_frames=8)(length)
    assert middle.tolist() == [[math.floor((i + 0.5) * length / 8) for i in range(8)]]
    for clips in (drawn, middle, SpacedSegments(3, 8)(length)):
        for part, frames in enumerate(clips.T):
            low, high = math.floor(part * length / 8), math.ceil((part + 1) * length / 8) - 1
            assert low <= frames.min() and frames.max() <= max(high, low) < length
    # Each part's every frame is drawn sometimes.
    if length == 37:
        assert set(drawn.flatten().tolist()) == set(range(37))


def test_several_clips_of_segments_take_different_frames():
    assert SpacedSegments(num_clips=2, num_frames=2)(80).tolist() == [[10, 50], [30, 70]]


def test_random_numbers_are_torchs():
    for sampler in (RandomClip(), RandomSegments()):
        torch.manual_seed(5)
        first = sampler(500)
        torch.manual_seed(5)
        assert (sampler(500) == first).all()
        assert (sampler(500) != first).any()
