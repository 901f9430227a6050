"""Brightness, contrast, saturation and hue against colorsys, pixel by pixel."""

import colorsys

import numpy as np
import pytest

from iwin_d2.d2.data import transforms as T
from iwin_d2.data.semantic_segmentation import PhotometricDistortion
from iwin_d2.data.semantic_segmentation.photometric import PhotometricTransform

RNG = np.random.default_rng(0)
IMAGE = np.concatenate(
    [
        RNG.integers(0, 256, (16, 20, 3)),
        np.repeat(RNG.integers(0, 256, (3, 20, 1)), 3, axis=2),  # grey
        np.array([0, 255])[RNG.integers(0, 2, (3, 20, 3))],  # full colours, black and white
    ]
).astype(np.uint8)


def slowly(image, brightness=0.0, contrast=1.0, saturation=1.0, hue=0.0, contrast_first=True):
    """The changes as they are described, a pixel at a time, without rounding in between."""
    result = np.empty(image.shape)
    for index in np.ndindex(image.shape[:2]):
        pixel = np.clip(image[index] + brightness, 0, 255)
        if contrast_first:
            pixel = np.clip(pixel * contrast, 0, 255)
        h, s, v = colorsys.rgb_to_hsv(*(pixel / 255))
        pixel = 255 * np.array(colorsys.hsv_to_rgb((h + hue / 180) % 1, min(s * saturation, 1), v))
        if not contrast_first:
            pixel = np.clip(pixel * contrast, 0, 255)
        result[index] = pixel
    return result


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({"brightness": 31.6}, 0.51),
        ({"brightness": -17.2}, 0.51),
        ({"contrast": 1.4}, 0.51),
        ({"contrast": 0.55, "contrast_first": False}, 0.51),
        ({"brightness": 20.0, "contrast": 0.7}, 0.51),
        # Pillow has the hue in 256 steps (OpenCV in 180), each six levels of a full colour.
        ({"saturation": 1.5}, 7),
        ({"saturation": 0.5}, 7),
        ({"hue": 18.0}, 10),
        ({"hue": -7.3}, 10),
        ({"brightness": -9.0, "contrast": 1.3, "saturation": 1.2, "hue": 11}, 10),
        ({"contrast": 1.3, "saturation": 0.8, "hue": -11, "contrast_first": False}, 13),
    ],
)
def test_it_is_what_colorsys_says(changes, tolerance):
    found = PhotometricTransform(**changes).apply_image(IMAGE)
    assert found.dtype == np.uint8 and found.shape == IMAGE.shape
    off = np.abs(found - slowly(IMAGE, **changes))
    assert off.max() <= tolerance
    assert off.mean() < 1.3, off.mean()
    unchanged = np.abs(found.astype(int) - IMAGE).mean()
    assert unchanged > 3 * off.mean()  # the changes are much larger than the error


def test_nothing_to_change():
    assert np.abs(PhotometricTransform().apply_image(IMAGE).astype(int) - IMAGE).max() == 0


def test_grey_stays_grey():
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    found = PhotometricTransform(saturation=1.5, hue=15).apply_image(grey)
    assert np.array_equal(found, grey)


@pytest.mark.parametrize("hue", [5.0, -18.0])
def test_the_other_order_of_channels_turns_the_hue_the_other_way(hue):
    one = PhotometricTransform(brightness=3, saturation=1.3, hue=hue).apply_image(IMAGE)
    other = PhotometricTransform(brightness=3, saturation=1.3, hue=-hue).apply_image(
        IMAGE[:, :, ::-1]
    )
    off = np.abs(one[:, :, ::-1].astype(int) - other)
    assert off.max() <= 12 and off.mean() < 1.5
    assert np.abs(one.astype(int) - other).mean() > 20


def draw(count=400, **settings):
    augmentation = PhotometricDistortion(**settings)
    np.random.seed(0)
    transforms = [augmentation.get_transform(IMAGE) for _ in range(count)]
    return [t for t in transforms if isinstance(t, PhotometricTransform)], count


def test_what_is_drawn():
    drawn, count = draw()
    assert 0.88 < len(drawn) / count < 0.98  # 15 of 16
    for name, neutral, least, greatest in (
        ("brightness", 0.0, -32, 32),
        ("contrast", 1.0, 0.5, 1.5),
        ("saturation", 1.0, 0.5, 1.5),
        ("hue", 0.0, -18, 18),
    ):
        values = np.array([getattr(transform, name) for transform in drawn])
        changed = values[values != neutral]
        assert 0.42 < len(changed) / count < 0.58
        span = greatest - least
        assert least <= changed.min() < least + 0.05 * span
        assert greatest - 0.05 * span < changed.max() <= greatest
    assert 0.42 < np.mean([transform.contrast_first for transform in drawn]) < 0.58


def test_the_random_state_decides():
    def run(seed):
        np.random.seed(seed)
        augmented = T.AugInput(IMAGE.copy(), sem_seg=IMAGE[:, :, 0].copy())
        PhotometricDistortion()(augmented)
        assert np.array_equal(augmented.sem_seg, IMAGE[:, :, 0])
        return augmented.image

    assert np.array_equal(run(3), run(3))
    assert not np.array_equal(run(3), run(4))


def test_the_same_numbers_are_drawn_whatever_is_used():
    """So that what comes after does not depend on which changes were chosen."""
    states = set()
    for settings in ({}, {"hue": 0}, {"contrast": (1, 1), "brightness": 5}):
        np.random.seed(0)
        PhotometricDistortion(**settings).get_transform(IMAGE)
        states.add(np.random.rand())
    assert len(states) == 1


@pytest.mark.parametrize("image", [IMAGE.astype(np.float32), IMAGE[:, :, :1], IMAGE[:, :, 0]])
def test_other_images_are_refused(image):
    with pytest.raises(ValueError, match="takes images of uint8 and 3 channels, got"):
        PhotometricTransform(brightness=3).apply_image(image)


@pytest.mark.parametrize(
    "settings",
    [{"contrast": (1.5, 0.5)}, {"saturation": (-1, 1)}, {"hue": 200}, {"brightness": -1}],
)
def test_settings_that_make_no_sense(settings):
    with pytest.raises(ValueError, match="must be"):
        PhotometricDistortion(**settings)
