"""Anchors, box changes, matching, sampling and the RPN against loops and hand-computed numbers."""

import math

import pytest
import torch
import torch.nn.functional as F

from iwin_d2.d2.layers import batched_nms
from iwin_d2.d2.modeling import (
    RPN,
    Box2BoxTransform,
    DefaultAnchorGenerator,
    Matcher,
    StandardRPNHead,
    subsample_labels,
)
from iwin_d2.d2.structures import Boxes, ImageList, Instances, pairwise_iou
from iwin_d2.d2.utils.events import EventStorage


def random_boxes(n: int, size: float = 40) -> torch.Tensor:
    corner = torch.rand(n, 2) * size
    return torch.cat([corner, corner + torch.rand(n, 2) * size + 4], dim=1)


# Anchors


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_anchors_against_a_loop(offset):
    sizes, ratios, strides = [[32, 64], [128]], [[0.5, 1.0], [2.0]], [8, 16]
    generator = DefaultAnchorGenerator(
        sizes=sizes, aspect_ratios=ratios, strides=strides, offset=offset
    )
    assert list(generator.num_anchors) == [4, 1]
    got = generator([torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 1, 2)])
    for boxes, (height, width), s, r, stride in zip(got, [(2, 3), (1, 2)], sizes, ratios, strides):
        expected = []
        for row in range(height):
            for column in range(width):
                for size in s:
                    for ratio in r:
                        w = math.sqrt(size**2 / ratio)
                        h = ratio * w
                        x, y = (column + offset) * stride, (row + offset) * stride
                        expected.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        assert torch.allclose(boxes.tensor, torch.tensor(expected), atol=1e-4)


def test_anchors_shared_by_all_levels_and_not_saved():
    generator = DefaultAnchorGenerator(
        sizes=[[32], [64]], aspect_ratios=[0.5, 1.0, 2.0], strides=[4, 8], offset=0.0
    )
    assert list(generator.num_anchors) == [3, 3]
    assert not generator.state_dict()
    assert generator.box_dim == 4
    with pytest.raises((AssertionError, ValueError)):
        DefaultAnchorGenerator(sizes=[[1], [2]], aspect_ratios=[[1.0]], strides=[1, 2, 3])


# Box changes


def test_deltas_by_hand():
    transform = Box2BoxTransform((10.0, 10.0, 5.0, 5.0))
    source = torch.tensor([[10.0, 10, 30, 50]])  # centre (20, 30), 20 x 40
    target = torch.tensor([[20.0, 40, 60, 60]])  # centre (40, 50), 40 x 20
    expected = torch.tensor([[10.0, 5, 5 * math.log(2), -5 * math.log(2)]])
    assert torch.allclose(transform.get_deltas(source, target), expected)


def test_deltas_there_and_back():
    torch.manual_seed(0)
    transform = Box2BoxTransform((10.0, 10.0, 5.0, 5.0))
    source, target = random_boxes(20), random_boxes(20)
    deltas = transform.get_deltas(source, target)
    assert torch.allclose(transform.apply_deltas(deltas, source), target, atol=1e-3)
    both = transform.apply_deltas(torch.cat([deltas, torch.zeros(20, 4)], dim=1), source)
    assert both.shape == (20, 8)
    assert torch.allclose(both[:, 4:], source, atol=1e-4)
    assert transform.apply_deltas(torch.zeros(0, 8), torch.zeros(0, 4)).shape == (0, 8)


def test_growth_is_limited_and_half_precision_is_not_used():
    transform = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))
    deltas = torch.tensor([[0.0, 0, 100, -100]], dtype=torch.float16)
    boxes = transform.apply_deltas(deltas, torch.tensor([[0.0, 0, 16, 16]]))
    assert boxes.dtype == torch.float32
    assert (boxes[0, 2] - boxes[0, 0]).item() == pytest.approx(1000, rel=1e-4)
    assert (boxes[0, 3] - boxes[0, 1]).item() == pytest.approx(0, abs=1e-4)


def test_boxes_without_extent_have_no_deltas():
    with pytest.raises(AssertionError):
        Box2BoxTransform((1.0, 1, 1, 1)).get_deltas(torch.zeros(1, 4), torch.ones(1, 4))


# Matching and sampling


@pytest.mark.parametrize("low_quality", [False, True])
def test_matcher_against_a_loop(low_quality):
    torch.manual_seed(0)
    quality = torch.rand(4, 30).round(decimals=1)  # with ties, and values on the thresholds
    matches, labels = Matcher([0.3, 0.7], [0, -1, 1], low_quality)(quality)
    for column in range(30):
        best = quality[:, column].max()
        assert quality[matches[column], column] == best
        expected = 0 if best < 0.3 else (-1 if best < 0.7 else 1)
        if low_quality and any(quality[r, column] == quality[r].max() for r in range(4)):
            expected = 1
        assert labels[column].item() == expected


def test_low_quality_matches_rescue_a_truth_that_nothing_fits():
    quality = torch.tensor([[0.1, 0.2, 0.2], [0.8, 0.0, 0.1]])
    matches, labels = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True)(quality)
    assert matches.tolist() == [1, 0, 0]
    assert labels.tolist() == [1, 1, 1]


def test_matcher_without_ground_truth():
    matches, labels = Matcher([0.5], [0, 1])(torch.zeros(0, 5))
    assert matches.tolist() == [0] * 5
    assert labels.tolist() == [0] * 5
    assert labels.dtype == torch.int8


@pytest.mark.parametrize("thresholds, labels", [([0.5], [0]), ([0.7, 0.3], [0, -1, 1])])
def test_matcher_arguments(thresholds, labels):
    with pytest.raises((ValueError, AssertionError)):
        Matcher(thresholds, labels)


@pytest.mark.parametrize(
    "positives, negatives, expected", [(30, 70, (5, 15)), (2, 70, (2, 18)), (9, 3, (5, 3))]
)
def test_subsampled_counts(positives, negatives, expected):
    labels = torch.tensor([3] * positives + [8] * negatives + [-1] * 10)
    labels = labels[torch.randperm(len(labels))]
    positive, negative = subsample_labels(labels, 20, 0.25, bg_label=8)
    assert (len(positive), len(negative)) == expected
    assert (labels[positive] == 3).all()
    assert (labels[negative] == 8).all()
    assert len(set(positive.tolist())) == len(positive)


# The network

SIZES = [(50, 64), (64, 60)]


def make_rpn(**overrides) -> RPN:
    arguments = {
        "in_features": ["p3", "p4"],
        "head": StandardRPNHead(in_channels=8, num_anchors=2),
        "anchor_generator": DefaultAnchorGenerator(
            sizes=[[16], [32]], aspect_ratios=[1.0, 2.0], strides=[8, 16], offset=0.5
        ),
        "anchor_matcher": Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        "box2box_transform": Box2BoxTransform((1.0, 1.0, 1.0, 1.0)),
        "batch_size_per_image": 20,
        "positive_fraction": 0.5,
        "pre_nms_topk": (40, 25),
        "post_nms_topk": (20, 10),
    }
    return RPN(**{**arguments, **overrides})


def make_inputs():
    torch.manual_seed(0)
    images = ImageList.from_tensors([torch.zeros(3, *size) for size in SIZES], 16)
    features = {"p3": torch.randn(2, 8, 8, 8), "p4": torch.randn(2, 8, 4, 4)}
    targets = []
    for size, n in zip(SIZES, (3, 0)):
        target = Instances(size)
        target.gt_boxes = Boxes(random_boxes(n, 25))
        targets.append(target)
    return images, features, targets


def test_head_keys_and_initial_weights():
    head = StandardRPNHead(in_channels=64, num_anchors=3)
    names = ("conv", "objectness_logits", "anchor_deltas")
    assert set(head.state_dict()) == {f"{n}.{p}" for n in names for p in ("weight", "bias")}
    assert head.conv.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert (head.conv.bias == 0).all()
    logits, deltas = head([torch.randn(2, 64, 4, 5), torch.randn(2, 64, 2, 3)])
    assert [x.shape for x in logits] == [(2, 3, 4, 5), (2, 3, 2, 3)]
    assert [x.shape for x in deltas] == [(2, 12, 4, 5), (2, 12, 2, 3)]
    several = StandardRPNHead(in_channels=8, num_anchors=1, conv_dims=(16, -1))
    assert several.state_dict()["conv.conv1.weight"].shape == (16, 16, 3, 3)


@pytest.mark.parametrize("loss_type", ["smooth_l1", "giou"])
def test_losses_against_a_loop(loss_type):
    rpn = make_rpn(
        box_reg_loss_type=loss_type,
        smooth_l1_beta=0.1,
        loss_weight={"loss_rpn_cls": 2.0, "loss_rpn_loc": 3.0},
    )
    _, features, targets = make_inputs()
    anchors = rpn.anchor_generator([features["p3"], features["p4"]])
    flat = Boxes.cat(anchors).tensor
    labels, gt_boxes = rpn.label_and_sample_anchors(anchors, targets)
    counts = [len(a) for a in anchors]
    logits, deltas = torch.randn(2, len(flat)), torch.randn(2, len(flat), 4) * 0.2
    with EventStorage():
        got = rpn.losses(
            anchors, list(logits.split(counts, 1)), labels, list(deltas.split(counts, 1)), gt_boxes
        )
    cls_loss, loc_loss = 0.0, 0.0
    for i, target in enumerate(targets):
        iou = pairwise_iou(target.gt_boxes, Boxes(flat))
        for j, label in enumerate(labels[i].tolist()):
            if label >= 0:
                cls_loss += F.binary_cross_entropy(
                    logits[i, j].sigmoid(), torch.tensor(float(label))
                ).item()
            if label == 1:
                truth = target.gt_boxes.tensor[iou[:, j].argmax()]
                if loss_type == "giou":
                    predicted = rpn.box2box_transform.apply_deltas(
                        deltas[i, j][None], flat[j][None]
                    )
                    loc_loss += slow_giou_loss(predicted[0].tolist(), truth.tolist())
                else:
                    wanted = rpn.box2box_transform.get_deltas(flat[j][None], truth[None])
                    loc_loss += F.smooth_l1_loss(
                        deltas[i, j][None], wanted, beta=0.1, reduction="sum"
                    ).item()
    assert loc_loss > 0
    assert got["loss_rpn_cls"].item() == pytest.approx(2 * cls_loss / 40, rel=1e-4)
    assert got["loss_rpn_loc"].item() == pytest.approx(3 * loc_loss / 40, rel=1e-4)


def slow_giou_loss(a, b) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return 1 - (inter / union - (hull - union) / hull)


def test_sampled_labels():
    rpn = make_rpn()
    _, features, targets = make_inputs()
    anchors = rpn.anchor_generator([features["p3"], features["p4"]])
    labels, gt_boxes = rpn.label_and_sample_anchors(anchors, targets)
    for label, boxes in zip(labels, gt_boxes):
        assert (label >= 0).sum() == 20
        assert (label == 1).sum() <= 10
        assert boxes.shape == (len(label), 4)
    assert (labels[0] == 1).any()
    assert not (labels[1] == 1).any(), "an image without objects has no positives"


def test_anchors_outside_the_image_take_no_part():
    rpn = make_rpn(anchor_boundary_thresh=0, batch_size_per_image=1000, positive_fraction=1.0)
    _, features, targets = make_inputs()
    anchors = rpn.anchor_generator([features["p3"], features["p4"]])
    labels, _ = rpn.label_and_sample_anchors(anchors, targets)
    for label, size in zip(labels, SIZES):
        outside = ~Boxes.cat(anchors).inside_box(size)
        assert outside.any()
        assert (label[outside] == -1).all()


@pytest.mark.parametrize("training", [False, True])
def test_proposals_against_a_loop(training):
    rpn = make_rpn(min_box_size=3.0).train(training)
    images, features, targets = make_inputs()
    with torch.no_grad(), EventStorage():
        for parameter in rpn.rpn_head.parameters():
            parameter.normal_(std=0.1)
        maps = [features["p3"], features["p4"]]
        proposals, losses = rpn(images, features, targets if training else None)
        logits, deltas = rpn.rpn_head(maps)
    assert bool(losses) == training
    pre, post = (40, 20) if training else (25, 10)
    for i, size in enumerate(SIZES):
        boxes, scores, levels = [], [], []
        for level, anchors in enumerate(rpn.anchor_generator(maps)):
            _, _, height, width = maps[level].shape
            candidates = []
            for index, anchor in enumerate(anchors.tensor):
                row, column, a = index // (width * 2), index // 2 % width, index % 2
                delta = deltas[level][i, a * 4 : a * 4 + 4, row, column]
                box = rpn.box2box_transform.apply_deltas(delta[None], anchor[None])[0]
                candidates.append((logits[level][i, a, row, column].item(), box))
            assert len(candidates) == height * width * 2
            for score, box in sorted(candidates, key=lambda c: -c[0])[:pre]:
                box = box.clamp(min=0).minimum(torch.tensor([size[1], size[0]] * 2))
                if (box[2:] - box[:2] > 3).all():
                    boxes.append(box)
                    scores.append(score)
                    levels.append(level)
        boxes, scores = torch.stack(boxes), torch.tensor(scores)
        keep = batched_nms(boxes, scores, torch.tensor(levels), 0.7)[:post]
        assert proposals[i].image_size == size
        assert torch.allclose(proposals[i].objectness_logits, scores[keep], atol=1e-5)
        assert torch.allclose(proposals[i].proposal_boxes.tensor, boxes[keep], atol=1e-3)


def test_no_gradient_through_proposals_and_all_parameters_learn():
    rpn = make_rpn().train()
    images, features, targets = make_inputs()
    with EventStorage():
        proposals, losses = rpn(images, features, targets)
    assert not proposals[0].proposal_boxes.tensor.requires_grad
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in rpn.parameters())


def test_metrics_of_the_rpn():
    rpn = make_rpn().train()
    images, features, targets = make_inputs()
    with EventStorage() as storage:
        rpn(images, features, targets)
    latest = {name: value for name, (value, _) in storage.latest().items()}
    assert latest["rpn/num_pos_anchors"] + latest["rpn/num_neg_anchors"] == 20
    assert latest["rpn/num_pos_anchors"] > 0


def test_divergence_stops_training_and_is_passed_over_in_testing():
    rpn = make_rpn()
    images, features, targets = make_inputs()
    features["p3"][0, 0, 0, 0] = float("nan")
    with EventStorage(), pytest.raises(FloatingPointError):
        rpn.train()(images, features, targets)
    proposals, _ = rpn.eval()(images, features, None)
    assert torch.isfinite(proposals[0].proposal_boxes.tensor).all()
