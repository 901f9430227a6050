"""Scale jitter, the crop that no class fills, padding: against what they are said to do."""

import numpy as np
import pytest
from PIL import Image

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.config import instantiate
from iwin_d2.d2.data import transforms as T
from iwin_d2.data.semantic_segmentation import PadTo, RandomCropByLabels, ResizeByRatio
from iwin_d2.data.semantic_segmentation.fused import fuse

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (37, 53, 3)).astype(np.uint8)
LABELS = RNG.integers(0, 9, (37, 53)).astype(np.uint8)


def apply(augmentation, image=IMAGE, labels=LABELS, seed=0):
    np.random.seed(seed)
    augmented = T.AugInput(image.copy(), sem_seg=None if labels is None else labels.copy())
    transform = augmentation(augmented)
    return augmented.image, augmented.sem_seg, transform


# ---- resizing -----------------------------------------------------------------------------------


def nearest(labels, height, width):
    """The pixel under the centre of each new one."""
    rows = np.floor((np.arange(height) + 0.5) * labels.shape[0] / height).astype(int)
    columns = np.floor((np.arange(width) + 0.5) * labels.shape[1] / width).astype(int)
    return labels[rows][:, columns]


@pytest.mark.parametrize("size", [(64, 91), (20, 31), (74, 106), (37, 53)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_labels_take_the_nearest_pixel(size, dtype):
    resize = ResizeByRatio((max(size), min(size)), (1.0, 1.0)).get_transform(IMAGE)
    labels = (LABELS * (1 if dtype == np.uint8 else 100)).astype(dtype)
    new = (resize.new_h, resize.new_w)
    found = resize.apply_segmentation(labels)
    assert found.dtype == dtype and np.array_equal(found, nearest(labels, *new))


@pytest.mark.parametrize("size", [(64, 91), (20, 31), (74, 106)])
def test_the_frameworks_resize_takes_the_nearest_pixel_of_bytes(size):
    """What test images, and labels for the validation loss, go through."""
    resize = T.ResizeTransform(37, 53, *size, Image.BILINEAR)
    assert np.array_equal(resize.apply_segmentation(LABELS), nearest(LABELS, *size))


@pytest.mark.parametrize("shape", [(512, 683), (683, 512), (300, 2000), (512, 2048), (1, 1)])
@pytest.mark.parametrize("ratio", [0.5, 0.7312, 1.0, 1.999])
def test_the_image_fits_exactly_into_the_scaled_size(shape, ratio):
    height, width = ResizeByRatio().fitted(*shape, ratio)
    longer, shorter = int(2048 * ratio), int(512 * ratio)
    assert max(height, width) <= longer and min(height, width) <= shorter
    assert max(height, width) == longer or min(height, width) == shorter
    scale = max(height, width) / max(shape)
    assert abs(min(height, width) - max(min(shape) * scale, 1)) <= 0.5 + scale


def test_ratios_are_drawn_from_the_whole_range():
    sides = [min(apply(ResizeByRatio((400, 100)), seed=s)[0].shape[:2]) for s in range(60)]
    assert 50 <= min(sides) < 60 and 190 < max(sides) <= 200
    image, labels, _ = apply(ResizeByRatio((400, 100)), seed=1)
    again, _, _ = apply(ResizeByRatio((400, 100)), seed=1)
    assert image.shape[:2] == labels.shape and np.array_equal(image, again)


# ---- the crop -----------------------------------------------------------------------------------


def largest_share(labels, ignored=255):
    """Of the pixels that are not ignored; 0 where all are."""
    counted = labels[labels != ignored]
    return max(np.mean(counted == value) for value in np.unique(counted)) if counted.size else 0.0


def halves():
    """Class 0 on the left, class 3 on the right, and a column of ignored pixels."""
    labels = np.zeros((60, 100), dtype=np.uint8)
    labels[:, 50:] = 3
    labels[:, 30] = 255
    return labels


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("seed", range(8))
def test_no_class_fills_the_crop(seed, dtype):
    labels = halves()
    image = np.repeat(labels[:, :, None], 3, axis=2)
    crop = RandomCropByLabels((30, 40))
    cut, found, transform = apply(crop, image, labels.astype(dtype), seed)
    assert found.shape == (30, 40) and np.array_equal(cut[:, :, 0], found)
    assert 0 < largest_share(found) <= 0.75
    assert isinstance(transform, T.CropTransform)


def test_without_the_rule_the_first_place_is_taken():
    crop, image = RandomCropByLabels((30, 40), 1.0), np.zeros((60, 100, 3), np.uint8)
    shares = [largest_share(apply(crop, image, halves(), seed)[1]) for seed in range(20)]
    assert max(shares) == 1.0


def test_ignored_pixels_do_not_count():
    labels = np.full((40, 40), 255, dtype=np.uint8)
    labels[:, :4], labels[:, 4:6] = 1, 2  # two thirds and one third of what counts
    crop = RandomCropByLabels((40, 30))
    assert crop._is_mixed(labels[:, :30])
    assert not RandomCropByLabels((40, 30), 0.6)._is_mixed(labels[:, :30])
    assert not RandomCropByLabels((40, 30), ignore_value=2)._is_mixed(labels[:, :30])


@pytest.mark.parametrize("value", [255, 4])
def test_where_nothing_fits_the_last_try_is_taken(value):
    labels = np.full((60, 100), value, dtype=np.uint8)
    _, found, _ = apply(RandomCropByLabels((30, 40)), np.zeros((60, 100, 3), np.uint8), labels)
    assert found.shape == (30, 40)
    np.random.seed(0)
    draws = [(np.random.randint(31), np.random.randint(61)) for _ in range(10)]
    _, _, transform = apply(RandomCropByLabels((30, 40)), np.zeros((60, 100, 3), np.uint8), labels)
    assert (transform.y0, transform.x0) == draws[-1]


@pytest.mark.parametrize(("size", "shape"), [((64, 64), (37, 53)), ((20, 64), (20, 53))])
def test_images_smaller_than_the_crop(size, shape):
    image, labels, _ = apply(RandomCropByLabels(size, max_share=1.0))
    assert image.shape[:2] == labels.shape == shape


def test_the_crop_of_an_image_without_labels():
    image, labels, _ = apply(RandomCropByLabels((20, 20)), labels=None)
    assert image.shape == (20, 20, 3) and labels is None


# ---- both at once -------------------------------------------------------------------------------


SMOOTH = np.asarray(Image.fromarray(IMAGE).resize((230, 170), Image.BICUBIC))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("size", [(40, 60), (90, 90), (400, 400)])
def test_the_part_that_the_crop_keeps(seed, size):
    labels = np.kron(LABELS[:34, :46], np.ones((5, 5), dtype=np.uint8))
    pair = [ResizeByRatio((800, 100)), RandomCropByLabels(size)]
    image, cut, _ = apply(T.AugmentationList(pair), SMOOTH, labels, seed)
    after = np.random.rand()
    fused_image, fused_cut, transforms = apply(T.AugmentationList(fuse(pair)), SMOOTH, labels, seed)
    assert np.random.rand() == after
    assert np.array_equal(fused_cut, cut) and fused_image.shape == image.shape
    off = np.abs(fused_image.astype(int) - image)
    assert off.max() <= 1 and (off > 0).mean() < 0.05
    assert np.array_equal(transforms.apply_segmentation(labels), cut)


@pytest.mark.parametrize("image", [SMOOTH[:, :, 0].copy(), SMOOTH.astype(np.float32)])
def test_the_part_of_other_images(image):
    pair = [ResizeByRatio((800, 100)), RandomCropByLabels((40, 60))]
    whole, _, _ = apply(T.AugmentationList(pair), image, None)
    part, _, _ = apply(T.AugmentationList(fuse(pair)), image, None)
    assert part.dtype == whole.dtype and part.shape == whole.shape == (40, 60, *image.shape[2:])
    assert np.abs(part.astype(float) - whole).max() <= 1


def test_what_is_put_together():
    resize, crop, flip = ResizeByRatio(), RandomCropByLabels(), T.RandomFlip()
    (first, second) = fuse([resize, crop, flip])
    assert (first.resize, first.crop, second) == (resize, crop, flip)
    for apart in ([resize, flip, crop], [crop, resize], [T.Resize(9), crop]):
        assert fuse(apart) == apart
    assert "ResizeByRatio" in repr(first) and "RandomCropByLabels" in repr(first)


# ---- padding ------------------------------------------------------------------------------------


def test_padding_is_the_mean_and_ignored():
    image, labels, transform = apply(PadTo((40, 60)))
    assert np.array_equal(image[:37, :53], IMAGE) and np.array_equal(labels[:37, :53], LABELS)
    outside = np.ones((40, 60), dtype=bool)
    outside[:37, :53] = False
    assert (image[outside] == [124, 116, 104]).all() and (labels[outside] == 255).all()
    assert (image.dtype, labels.dtype) == (np.uint8, np.uint8)
    assert np.array_equal(transform.inverse().apply_image(image), IMAGE)
    assert np.array_equal(transform.apply_coords(np.array([[3.0, 4.0]])), [[3.0, 4.0]])


def test_padding_of_floats_is_exact():
    image, _, _ = apply(PadTo((40, 60), (1.25, 2.5, -3.0), 7), IMAGE.astype(np.float32))
    assert image.dtype == np.float32 and (image[39, 59] == [1.25, 2.5, -3.0]).all()
    grey, labels, _ = apply(PadTo((40, 60), 0, 7), IMAGE[:, :, 0].copy())
    assert grey[39, 59] == 0 and labels[39, 59] == 7


def test_what_is_large_enough_is_not_padded():
    image, labels, _ = apply(PadTo((30, 53)))
    assert np.array_equal(image, IMAGE) and np.array_equal(labels, LABELS)


# ---- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: ResizeByRatio((0, 5)), "two numbers of pixels above 0"),
        (lambda: ResizeByRatio(ratio_range=(2.0, 0.5)), "two ratios above 0, least first"),
        (lambda: RandomCropByLabels((0, 5)), "in pixels"),
        (lambda: RandomCropByLabels(max_share=0.0), "above 0, and not above 1"),
        (lambda: PadTo((5,)), "in pixels"),
    ],
)
def test_settings_that_make_no_sense(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()


def test_they_come_out_of_a_lazy_config():
    items = [
        L(ResizeByRatio)(size=[256, 64], ratio_range=[0.5, 2.0]),
        L(RandomCropByLabels)(crop_size=[48, 48], max_share=0.75, ignore_value=255),
        L(PadTo)(size=[48, 48], pad_value=[1.0, 2.0, 3.0]),
    ]
    augmentations = T.AugmentationList([instantiate(item) for item in items])
    image, labels, _ = apply(augmentations)
    assert image.shape == (48, 48, 3) and labels.shape == (48, 48)
    for part in ("ResizeByRatio(size=(256, 64)", "max_share=0.75", "pad_value=(1.0, 2.0, 3.0)"):
        assert part in repr(augmentations)
