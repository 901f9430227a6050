"""RandomChoice: one list of augmentations, for image, boxes and masks alike."""

import numpy as np
import pytest

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.config import instantiate
from iwin_d2.d2.data import transforms as T
from iwin_d2.data.augmentations import RandomChoice

IMAGE = np.random.default_rng(1).integers(0, 256, (40, 60, 3)).astype(np.uint8)
BOXES = np.array([[5.0, 6.0, 25.0, 30.0], [10.0, 2.0, 50.0, 38.0]])


def published() -> RandomChoice:
    """The structure of the published augmentation, at a small size."""

    def resize(sizes):
        return T.ResizeShortestEdge(sizes, max_size=100, sample_style="choice")

    crop = T.RandomCrop("absolute_range", (16, 24))
    return RandomChoice([[resize([32, 48, 64])], [resize([40, 50]), crop, resize([32, 48])]])


@pytest.mark.parametrize("seed", range(6))
def test_image_boxes_and_masks_take_the_same_way(seed):
    labels = np.zeros(IMAGE.shape[:2], dtype=np.uint8)
    labels[6:30, 5:25] = 1
    aug_input = T.AugInput(IMAGE.copy(), boxes=BOXES.copy(), sem_seg=labels.copy())
    np.random.seed(seed)
    transform = published()(aug_input)
    assert np.array_equal(transform.apply_image(IMAGE.copy()), aug_input.image)
    assert np.allclose(transform.apply_box(BOXES.copy()), aug_input.boxes)
    assert np.array_equal(transform.apply_segmentation(labels.copy()), aug_input.sem_seg)
    corners = np.array([[5.0, 6.0], [25.0, 6.0], [25.0, 30.0], [5.0, 30.0]])
    height, width = aug_input.image.shape[:2]
    for polygon in transform.apply_polygons([corners.copy()]):  # cut off where the crop ends
        box = np.clip(aug_input.boxes[0].reshape(2, 2), 0, [width, height])
        assert np.allclose([polygon.min(0), polygon.max(0)], box)


def test_both_lists_are_chosen_and_nothing_else():
    np.random.seed(0)
    lengths = [len(published()(T.AugInput(IMAGE.copy())).transforms) for _ in range(40)]
    assert set(lengths) == {1, 3}
    assert 8 < lengths.count(1) < 32


def test_probabilities_are_followed():
    choice = RandomChoice([[T.RandomFlip(prob=1.0)], []], probabilities=[0.0, 1.0])
    for _ in range(10):
        aug_input = T.AugInput(IMAGE.copy())
        choice(aug_input)
        assert np.array_equal(aug_input.image, IMAGE)


def test_the_random_state_decides():
    def run():
        np.random.seed(5)
        aug_input = T.AugInput(IMAGE.copy())
        published()(aug_input)
        return aug_input.image

    assert np.array_equal(run(), run())


@pytest.mark.parametrize("probabilities", [[1.0], [0.5, 0.6], [-0.5, 1.5]])
def test_probabilities_that_do_not_fit(probabilities):
    with pytest.raises(ValueError, match="adding up to 1"):
        RandomChoice([[], []], probabilities)


def test_no_list_at_all():
    with pytest.raises(ValueError, match="at least one list"):
        RandomChoice([])


def test_it_comes_out_of_a_lazy_config():
    choice = instantiate(
        L(RandomChoice)(augmentations=[[L(T.RandomFlip)(prob=1.0)], []], probabilities=[1.0, 0.0])
    )
    aug_input = T.AugInput(IMAGE.copy())
    choice(aug_input)
    assert np.array_equal(aug_input.image, IMAGE[:, ::-1])
    assert "RandomFlip" in repr(choice)
