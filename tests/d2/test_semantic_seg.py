"""Semantic segmentation in Detectron2's parts: preprocessing, losses, scores in the user's size."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iwin_d2.d2.layers import ShapeSpec
from iwin_d2.d2.modeling import Backbone, SemanticSegmentor, SemSegFPNHead, sem_seg_postprocess

SHAPES = {"p2": ShapeSpec(channels=8, stride=4), "p4": ShapeSpec(channels=6, stride=16)}


class TinyPyramid(Backbone):
    """Two maps, p2 and p4."""

    size_divisibility = 16

    def __init__(self):
        super().__init__()
        self.fine = nn.Conv2d(3, 8, 4, stride=4)
        self.coarse = nn.Conv2d(8, 6, 4, stride=4)
        self._out_features = ["p2", "p4"]
        self._out_feature_channels = {name: shape.channels for name, shape in SHAPES.items()}
        self._out_feature_strides = {name: shape.stride for name, shape in SHAPES.items()}

    def forward(self, x):
        fine = F.relu(self.fine(x))
        return {"p2": fine, "p4": F.relu(self.coarse(fine))}


def make_head(**others):
    options = {"num_classes": 3, "conv_dims": 16, "common_stride": 4, **others}
    return SemSegFPNHead(input_shape=SHAPES, **options)


def make_segmenter(**others):
    torch.manual_seed(0)
    return SemanticSegmentor(
        backbone=TinyPyramid(),
        sem_seg_head=make_head(ignore_value=255, **others),
        pixel_mean=[100.0, 110.0, 120.0],
        pixel_std=[50.0, 60.0, 70.0],
    )


def halves(height, width):
    """An image that is bright on the left and dark on the right, with its labels."""
    labels = torch.zeros(height, width, dtype=torch.int64)
    labels[:, width // 2 :] = 2
    image = torch.where(labels == 0, 220, 30).expand(3, -1, -1)
    labels[:2] = 255
    return {"image": image.to(torch.uint8), "sem_seg": labels}


def test_names_and_shapes():
    state = {name: tuple(value.shape) for name, value in make_head(norm="BN").state_dict().items()}
    assert {name for name in state if "norm" not in name} == {
        "p2.0.weight",
        "p4.0.weight",
        "p4.2.weight",
        "predictor.weight",
        "predictor.bias",
    }
    assert state["p4.0.weight"] == (16, 6, 3, 3) and state["p4.2.weight"] == (16, 16, 3, 3)
    assert "p2.0.bias" in make_head().state_dict()
    assert not any("pixel" in name for name in make_segmenter().state_dict())


def test_the_head_by_hand():
    """One doubling after each convolution of the coarse map, the sum, the classifier."""
    torch.manual_seed(0)
    head = make_head().eval()
    features = {"p2": torch.randn(2, 8, 8, 12), "p4": torch.randn(2, 6, 2, 3)}
    x = features["p4"]
    for conv in (head.p4[0], head.p4[2]):
        x = F.relu(F.conv2d(x, conv.weight, conv.bias, padding=1))
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    fine = F.relu(F.conv2d(features["p2"], head.p2[0].weight, head.p2[0].bias, padding=1))
    logits = F.conv2d(x + fine, head.predictor.weight, head.predictor.bias)
    expected = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
    found, losses = head(features)
    assert losses == {} and found.shape == (2, 3, 32, 48)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(head.layers(features), logits)

    targets = torch.randint(0, 3, (2, 32, 48))
    targets[:, :5] = -1  # ignored by default
    nothing, losses = head.train()(features, targets)
    assert nothing is None and set(losses) == {"loss_sem_seg"}
    log = expected.log_softmax(1).gather(1, targets[:, None].clamp(min=0))
    torch.testing.assert_close(losses["loss_sem_seg"], -log[(targets >= 0)[:, None]].mean())


def test_losses_have_their_weight():
    torch.manual_seed(0)
    head, heavy = make_head(), make_head(loss_weight=2.5)
    heavy.load_state_dict(head.state_dict())
    features = {"p2": torch.randn(1, 8, 4, 4), "p4": torch.randn(1, 6, 1, 1)}
    targets = torch.randint(0, 3, (1, 16, 16))
    (one,), (other,) = (h(features, targets)[1].values() for h in (head, heavy))
    torch.testing.assert_close(other, 2.5 * one)


def test_a_head_of_nothing_is_refused():
    with pytest.raises(ValueError, match="empty"):
        SemSegFPNHead(input_shape={}, num_classes=2, conv_dims=8, common_stride=4)


def test_images_are_normalised_and_padded_and_labels_are_not_learnt_from_beyond_them():
    model = make_segmenter().train()
    seen = []
    model.backbone.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    first, second = halves(20, 40), halves(33, 17)
    (loss,) = model([first, second]).values()
    assert seen[0].shape == (2, 3, 48, 48)
    assert torch.allclose(seen[0][0, 1, :20, :40], (first["image"][1] - 110.0) / 60.0)
    assert (seen[0][0, :, 20:] == 0).all() and (seen[0][1, :, :, 17:] == 0).all()

    targets = torch.full((2, 48, 48), 255)
    targets[0, :20, :40], targets[1, :33, :17] = first["sem_seg"], second["sem_seg"]
    by_hand = model.sem_seg_head.losses(
        model.sem_seg_head.layers(model.backbone(seen[0])), targets
    )["loss_sem_seg"]
    torch.testing.assert_close(loss, by_hand)


def test_scores_are_of_the_size_that_is_asked_for():
    model = make_segmenter().eval()
    inputs = [{**halves(20, 40), "height": 50, "width": 31}, halves(33, 17)]
    with torch.no_grad():
        first, second = (output["sem_seg"] for output in model(inputs))
        alone = model([{"image": inputs[1]["image"]}])[0]["sem_seg"]
    assert first.shape == (3, 50, 31) and second.shape == (3, 33, 17)
    assert alone.shape == second.shape


def test_postprocessing_cuts_the_padding_off_and_resizes():
    scores = torch.randn(2, 8, 12)
    found = sem_seg_postprocess(scores, (6, 9), 12, 10)
    expected = F.interpolate(scores[None, :, :6, :9], (12, 10), mode="bilinear")[0]
    assert torch.equal(found, expected)


def test_it_learns_the_halves():
    model = make_segmenter().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    inputs = [halves(32, 48), halves(48, 32)]
    for _ in range(40):
        (loss,) = model(inputs).values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        for inputs_, output in zip(inputs, model(inputs)):
            counted = inputs_["sem_seg"] != 255
            right = output["sem_seg"].argmax(0)[counted] == inputs_["sem_seg"][counted]
            assert right.float().mean() > 0.95
    assert model.device == torch.device("cpu")
