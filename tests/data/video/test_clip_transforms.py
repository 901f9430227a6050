"""Transforms of clips: consistent over the frames, on uint8."""

import pytest
import torch
from torchvision.transforms import v2

from iwin_d2.data.classification.augmentations import RandomErasing
from iwin_d2.data.video.transforms import ShortSideResize, ThreeCrops

FRAMES = 5


@pytest.fixture
def still():
    """A clip whose frames are all the same."""
    torch.manual_seed(0)
    return torch.randint(256, (1, 3, 48, 80), dtype=torch.uint8).repeat(FRAMES, 1, 1, 1)


@pytest.mark.parametrize("size", [24, 48, 96])
@pytest.mark.parametrize("tall", [False, True])
def test_the_short_side_is_resized(still, size, tall):
    clip = still.transpose(2, 3) if tall else still
    long = round(80 * size / 48)
    out = ShortSideResize(size)(clip)
    assert out.dtype == torch.uint8
    assert out.shape == (FRAMES, 3, *((long, size) if tall else (size, long)))
    assert torch.equal(ShortSideResize(size)(clip[0]), out[0])
    if size == 48:
        assert out is clip


def test_resizing_keeps_the_picture():
    ramp = torch.arange(0, 240, 3, dtype=torch.uint8).expand(3, 48, 80)
    out = ShortSideResize(24)(ramp)
    expected = torch.nn.functional.avg_pool2d(ramp.float(), 2)
    assert (out.float() - expected).abs()[:, 2:-2, 2:-2].max() <= 1


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomResizedCrop(32, scale=(0.08, 1), ratio=(3 / 4, 4 / 3)),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
    ],
)
def test_torchvisions_treat_all_frames_alike(still, transform):
    outs = [transform(still) for _ in range(8)]
    for out in outs:
        assert out.dtype == torch.uint8 and len(out) == FRAMES
        assert (out == out[:1]).all()
    assert any(not torch.equal(out, outs[0]) for out in outs)


def test_erasing_takes_one_rectangle_of_all_frames(still):
    flat = torch.full_like(still, 255)
    torch.manual_seed(1)
    changed = (RandomErasing(p=1)(flat) != 255).any(1)  # [T, H, W], nearly all of the rectangle
    rows, columns = changed.any(0).any(1).nonzero(), changed.any(0).any(0).nonzero()
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    assert 0.02 * 0.9 <= height * width / (48 * 80) <= 1 / 3 * 1.1
    for frame in changed:
        assert frame.sum() > 0.95 * height * width
    erased = RandomErasing(p=1)(flat)
    values = erased[erased != 255].float()
    assert 100 < values.mean() < 130 and 45 < values.std() < 70  # ImageNet's, on average
    assert torch.equal(RandomErasing(p=0)(flat), flat)
    assert (flat == 255).all()


@pytest.mark.parametrize("tall", [False, True])
def test_three_crops_cover_the_clip(still, tall):
    clip = still.transpose(2, 3) if tall else still
    crops = ThreeCrops(48)(clip)
    assert crops.shape == (3, FRAMES, 3, 48, 48)
    for crop, start in zip(crops, (0, 16, 32)):
        whole = clip[:, :, start : start + 48] if tall else clip[..., start : start + 48]
        assert torch.equal(crop, whole)


def test_three_crops_resize_before():
    clip = torch.randint(256, (2, 3, 96, 160), dtype=torch.uint8)
    assert torch.equal(ThreeCrops(48)(clip), ThreeCrops(48)(ShortSideResize(48)(clip)))
