"""The detector's benchmark: each alternative detects and trains, on images of any size."""

import math

import pytest
import torch

from iwin_d2.benchmark import detector

SIZE = (64, 96)


MAKERS = (detector._ours, detector._torchvision, detector._swin)


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__)
def make(request):
    """Each alternative that can be had here."""
    if request.param is detector._swin and not detector.USE_DETECTRON2:
        pytest.skip("Detectron2 is not installed")
    return request.param


def test_each_makes_all_detections(make):
    (result,) = detector.build(make, training=False, images=1, size=SIZE)()
    found = result["instances"].pred_masks if "instances" in result else result["masks"]
    assert len(found) == 100


@pytest.mark.slow  # 512 regions for each image, however small that is
def test_each_learns(make):
    train = detector.build(make, training=True, images=2, size=SIZE)
    losses = [train(), train()]
    assert all(math.isfinite(loss) for loss in losses) and losses[0] != losses[1]


@pytest.mark.slow
def test_checkpointing_trains_the_same():
    losses = [
        detector.build(make, training=True, images=1, size=SIZE)()
        for make in (detector._ours, detector._checkpointing)
    ]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=0)


def test_objects_lie_in_their_image():
    image, boxes, classes = detector._scene(SIZE, 3)
    assert image.shape == (3, *SIZE) and image.dtype == torch.uint8 and len(classes) == len(boxes)
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= torch.tensor([96, 64])).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    masks = detector._masks(image, boxes)
    assert (masks.flatten(1).sum(1) > 0).all()
