"""SemanticFPNHead is Detectron2's SemSegFPNHead with this project's losses and dropout."""

import pytest
import torch
from segmenters import shrunken_semantic_fpn

from iwin_d2.d2.config import instantiate
from iwin_d2.d2.layers import ShapeSpec
from iwin_d2.d2.modeling import SemSegFPNHead
from iwin_d2.errors import ConfigError
from iwin_d2.modeling import SegmentationLoss, SemanticFPNHead

SHAPES = {f"p{level}": ShapeSpec(channels=6, stride=2**level) for level in (2, 3, 4, 5)}
OPTIONS = {"input_shape": SHAPES, "num_classes": 3, "conv_dims": 32, "common_stride": 4}


@pytest.fixture
def features():
    torch.manual_seed(1)
    return {
        name: torch.randn(2, 6, 64 // shape.stride, 96 // shape.stride)
        for name, shape in SHAPES.items()
    }


def both(**options):
    torch.manual_seed(0)
    ours = SemanticFPNHead(**OPTIONS, norm="GN", ignore_value=255, **options)
    torch.manual_seed(0)
    theirs = SemSegFPNHead(**OPTIONS, norm="GN", ignore_value=255)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    pairs = zip(ours.state_dict().values(), theirs.state_dict().values())
    assert all(torch.equal(a, b) for a, b in pairs)
    return ours, theirs


def test_without_options_it_is_the_same(features):
    ours, theirs = both()
    targets = torch.randint(0, 3, (2, 64, 96))
    targets[:, :20] = 255
    losses = [head.train()(features, targets)[1]["loss_sem_seg"] for head in (ours, theirs)]
    torch.testing.assert_close(*losses)
    gradients = [
        torch.autograd.grad(loss, head.parameters()) for loss, head in zip(losses, (ours, theirs))
    ]
    torch.testing.assert_close(*gradients)
    with torch.no_grad():
        scores = [head.eval()(features) for head in (ours, theirs)]
    assert scores[0][1] == {} and scores[0][0].shape == (2, 3, 64, 96)
    torch.testing.assert_close(scores[0][0], scores[1][0])


def test_its_own_losses_and_dropout(features):
    head, plain = both(dropout=0.5, loss=SegmentationLoss(class_weights=[1.0, 0.0, 0.0]))
    targets = torch.zeros(2, 64, 96, dtype=torch.int64)
    targets[0] = 1  # weighs nothing
    with torch.no_grad():
        found = head.losses(plain.layers(features), targets)["loss_sem_seg"]
        second = {name: x[1:] for name, x in features.items()}
        expected = plain.losses(plain.layers(second), targets[1:])["loss_sem_seg"]
        torch.testing.assert_close(found, expected)
        assert not torch.equal(head.train().layers(features), head.layers(features))
        torch.testing.assert_close(head.eval().layers(features), plain.layers(features))


def test_ignored_pixels_alone_change_nothing(features):
    head, _ = both()
    targets = torch.full((2, 64, 96), 255)
    (loss,) = head.train()(features, targets)[1].values()
    loss.backward()
    assert loss.item() == 0 and all((p.grad == 0).all() for p in head.parameters())


def test_misfits_are_said(features):
    with pytest.raises(ValueError, match="class_weights has 2 numbers for 3 classes"):
        SemanticFPNHead(**OPTIONS, loss=SegmentationLoss(class_weights=[1.0, 2.0]))
    head, _ = both()
    with pytest.raises(ConfigError, match='without "sem_seg"'):
        head.train()(features)


def test_the_config_on_a_pyramid():
    torch.manual_seed(0)
    model = instantiate(shrunken_semantic_fpn())
    assert isinstance(model.sem_seg_head, SemSegFPNHead) and model.sem_seg_head.num_classes == 5
    batch = [
        {
            "image": torch.randint(0, 256, (3, *size), dtype=torch.uint8),
            "sem_seg": torch.randint(0, 5, size),
        }
        for size in ((50, 70), (64, 33))
    ]
    losses = model.train()(batch)
    sum(losses.values()).backward()
    assert list(losses) == ["loss_sem_seg"]
    assert all(p.grad is not None for p in model.parameters())
    with torch.no_grad():
        first, second = model.eval()([{**batch[0], "height": 25, "width": 35}, batch[1]])
    assert first["sem_seg"].shape == (5, 25, 35) and second["sem_seg"].shape == (5, 64, 33)
