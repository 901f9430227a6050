"""Poolers, heads, sampling, losses and inference of the second stage, against loops."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from iwin_d2.d2.layers import ROIAlign, ShapeSpec
from iwin_d2.d2.modeling import (
    Box2BoxTransform,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
    Matcher,
    ROIHeads,
    ROIPooler,
    StandardROIHeads,
    add_ground_truth_to_proposals,
    fast_rcnn_inference,
    mask_rcnn_inference,
    mask_rcnn_loss,
    select_foreground_proposals,
)
from iwin_d2.d2.structures import BitMasks, Boxes, Instances, PolygonMasks
from iwin_d2.d2.utils.events import EventStorage

NUM_CLASSES = 3
SIZE = (64, 80)


def random_boxes(n: int, size: float = 30) -> torch.Tensor:
    corner = torch.rand(n, 2) * size
    return torch.cat([corner, corner + torch.rand(n, 2) * size + 4], dim=1)


def rectangle(x0, y0, x1, y1) -> np.ndarray:
    return np.array([x0, y0, x1, y0, x1, y1, x0, y1], dtype=float)


def make_targets(n: int) -> Instances:
    boxes = random_boxes(n)
    targets = Instances(SIZE)
    targets.gt_boxes = Boxes(boxes)
    targets.gt_classes = torch.arange(n) % NUM_CLASSES
    targets.gt_masks = PolygonMasks([[rectangle(*box)] for box in boxes.tolist()])
    return targets


def make_proposals(boxes: torch.Tensor) -> Instances:
    proposals = Instances(SIZE)
    proposals.proposal_boxes = Boxes(boxes)
    proposals.objectness_logits = torch.zeros(len(boxes))
    return proposals


# Pooler


def test_pooler_takes_each_box_from_the_level_of_its_size():
    torch.manual_seed(0)
    scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    maps = [torch.randn(2, 3, int(512 * s), int(512 * s)) for s in scales]
    sides = [2, 111, 112, 113, 223, 224, 300, 447, 448, 449, 500]
    boxes = torch.tensor([[3.0, 5, 3 + side, 5 + side] for side in sides])
    pooler = ROIPooler(7, scales, 0, "ROIAlignV2")
    pooled = pooler(maps, [Boxes(boxes[:4]), Boxes(boxes[4:])])
    assert pooled.shape == (len(sides), 3, 7, 7)
    for i, (side, box) in enumerate(zip(sides, boxes)):
        level = min(max(math.floor(4 + math.log2(side / 224) + 1e-6), 2), 5)
        roi = torch.cat([torch.tensor([float(i >= 4)]), box])[None]
        expected = ROIAlign((7, 7), scales[level - 2], 0)(maps[level - 2], roi)
        assert torch.allclose(pooled[i], expected[0], atol=1e-5), f"box of side {side}"


def test_pooler_of_one_level_of_no_boxes_and_its_gradient():
    feature = torch.randn(1, 3, 16, 16, requires_grad=True)
    one = ROIPooler((4, 5), [1 / 8], 2, "ROIAlign")
    pooled = one([feature], [Boxes(random_boxes(3))])
    assert pooled.shape == (3, 3, 4, 5)
    pooled.sum().backward()
    assert feature.grad.abs().sum() > 0
    two = ROIPooler(4, [1 / 8, 1 / 16], 2, "ROIAlignV2")
    assert two([feature, feature[..., ::2, ::2]], [Boxes([])]).shape == (0, 3, 4, 4)


@pytest.mark.parametrize("scales", [[1 / 4, 1 / 16], [1 / 3], [1 / 8, 1 / 4]])
def test_pooler_scales(scales):
    with pytest.raises((ValueError, AssertionError)):
        ROIPooler(7, scales, 0, "ROIAlignV2")


# Labelling and sampling


def test_ground_truth_joins_the_proposals():
    torch.manual_seed(0)
    targets, proposals = make_targets(2), make_proposals(random_boxes(3))
    (joined,) = add_ground_truth_to_proposals([targets], [proposals])
    assert set(joined.get_fields()) == {"proposal_boxes", "objectness_logits"}
    assert torch.equal(joined.proposal_boxes.tensor[3:], targets.gt_boxes.tensor)
    assert joined.objectness_logits[3:].sigmoid().tolist() == pytest.approx([1, 1])
    assert len(proposals) == 3
    assert not targets.has("proposal_boxes")


def make_heads(**overrides) -> ROIHeads:
    arguments = {
        "num_classes": NUM_CLASSES,
        "batch_size_per_image": 16,
        "positive_fraction": 0.25,
        "proposal_matcher": Matcher([0.5], [0, 1]),
    }
    return ROIHeads(**{**arguments, **overrides})


def test_sampled_proposals_carry_their_match():
    torch.manual_seed(0)
    targets = [make_targets(3), make_targets(0)]
    near = targets[0].gt_boxes.tensor.repeat(4, 1) + torch.rand(12, 4)
    far = random_boxes(30) + 100
    proposals = [make_proposals(torch.cat([near, far])), make_proposals(random_boxes(5))]
    with EventStorage() as storage:
        first, second = make_heads().label_and_sample_proposals(proposals, targets)
    assert len(first) == 16
    foreground = first.gt_classes < NUM_CLASSES
    assert foreground.tolist() == [True] * 4 + [False] * 12, "foreground comes first"
    for i in range(4):
        distance = (first.proposal_boxes.tensor[i] - targets[0].gt_boxes.tensor).abs().sum(1)
        truth = int(distance.argmin())
        assert first.gt_classes[i] == targets[0].gt_classes[truth]
        assert torch.equal(first.gt_boxes.tensor[i], targets[0].gt_boxes.tensor[truth])
        assert np.array_equal(first.gt_masks.polygons[i], targets[0].gt_masks.polygons[truth])
    assert (first.proposal_boxes.tensor[4:, 0] >= 100).all()
    assert len(second) == 5
    assert (second.gt_classes == NUM_CLASSES).all()
    assert not second.has("gt_boxes"), "an image without objects has no matched boxes"
    latest = {name: value for name, (value, _) in storage.latest().items()}
    assert latest == {"roi_head/num_fg_samples": 2, "roi_head/num_bg_samples": 8.5}


def test_ground_truth_is_sampled_only_when_wanted():
    targets = [make_targets(2)]
    far = [make_proposals(random_boxes(4) + 100)]
    with EventStorage():
        (with_truth,) = make_heads().label_and_sample_proposals(far, targets)
        (without,) = make_heads(proposal_append_gt=False).label_and_sample_proposals(far, targets)
    assert (with_truth.gt_classes < NUM_CLASSES).sum() == 2
    assert (without.gt_classes < NUM_CLASSES).sum() == 0


def test_foreground_selection():
    proposals = make_proposals(random_boxes(4))
    proposals.gt_classes = torch.tensor([3, 0, -1, 2])
    (selected,), (mask,) = select_foreground_proposals([proposals], bg_label=3)
    assert selected.gt_classes.tolist() == [0, 2]
    assert mask.tolist() == [False, True, False, True]


# Box head and predictor


def test_box_head_layers_and_keys():
    head = FastRCNNConvFCHead(
        ShapeSpec(channels=4, height=5, width=6), conv_dims=[8, 8], fc_dims=[16, 12], conv_norm="BN"
    )
    norm = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    expected = {f"conv{k}.norm.{n}" for k in (1, 2) for n in norm}
    expected |= {"conv1.weight", "conv2.weight"}
    expected |= {f"fc{k}.{n}" for k in (1, 2) for n in ("weight", "bias")}
    assert set(head.state_dict()) == expected
    assert head.fc1.weight.shape == (16, 8 * 5 * 6)
    assert head.output_shape.channels == 12
    out = head(torch.randn(3, 4, 5, 6))
    assert out.shape == (3, 12)
    assert (out >= 0).all()
    assert head(torch.zeros(0, 4, 5, 6)).shape == (0, 12)
    convs = FastRCNNConvFCHead(ShapeSpec(4, 5, 6), conv_dims=[8], fc_dims=[])
    assert convs.output_shape == ShapeSpec(8, 5, 6)
    assert "conv1.bias" in convs.state_dict()


def make_predictor(**overrides) -> FastRCNNOutputLayers:
    arguments = {
        "box2box_transform": Box2BoxTransform((10.0, 10.0, 5.0, 5.0)),
        "num_classes": NUM_CLASSES,
    }
    return FastRCNNOutputLayers(ShapeSpec(channels=6), **{**arguments, **overrides})


def labelled_proposals() -> list[Instances]:
    torch.manual_seed(0)
    proposals = [make_proposals(random_boxes(4)), make_proposals(random_boxes(3))]
    proposals[0].gt_boxes = Boxes(random_boxes(4))
    proposals[0].gt_classes = torch.tensor([0, 3, 2, 1])
    proposals[1].gt_classes = torch.tensor([3, 3, 3])  # an image without objects
    return proposals


def slow_giou_loss(a, b) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return 1 - (inter / union - (hull - union) / hull)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("loss_type", ["smooth_l1", "giou"])
def test_box_losses_against_a_loop(agnostic, loss_type):
    predictor = make_predictor(
        cls_agnostic_bbox_reg=agnostic,
        box_reg_loss_type=loss_type,
        smooth_l1_beta=0.5,
        loss_weight={"loss_box_reg": 10.0},
    )
    proposals = labelled_proposals()
    logits, deltas = torch.randn(7, 4), torch.randn(7, 4 if agnostic else 12)
    with EventStorage() as storage:
        got = predictor.losses((logits, deltas), proposals)
    classes = torch.tensor([0, 3, 2, 1, 3, 3, 3])
    assert got["loss_cls"].item() == pytest.approx(F.cross_entropy(logits, classes).item())
    total = 0.0
    for i in (0, 2, 3):
        delta = deltas[i] if agnostic else deltas[i].view(3, 4)[classes[i]]
        box, truth = proposals[0].proposal_boxes.tensor[i], proposals[0].gt_boxes.tensor[i]
        if loss_type == "giou":
            refined = predictor.box2box_transform.apply_deltas(delta[None], box[None])[0]
            total += slow_giou_loss(refined.tolist(), truth.tolist())
        else:
            wanted = predictor.box2box_transform.get_deltas(box[None], truth[None])[0]
            total += F.smooth_l1_loss(delta, wanted, beta=0.5, reduction="sum").item()
    assert got["loss_box_reg"].item() == pytest.approx(10 * total / 7, rel=1e-4)
    latest = {name: value for name, (value, _) in storage.latest().items()}
    predicted = logits.argmax(1)
    assert latest["fast_rcnn/cls_accuracy"] == pytest.approx(
        (predicted == classes).float().mean().item()
    )
    assert latest["fast_rcnn/false_negative"] == pytest.approx(
        (predicted[[0, 2, 3]] == 3).float().mean().item()
    )


def test_box_losses_without_foreground_still_have_a_gradient():
    predictor = make_predictor(box_reg_loss_type="giou")
    with EventStorage():
        losses = predictor.losses(predictor(torch.randn(3, 6)), labelled_proposals()[1:])
    assert losses["loss_box_reg"].item() == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in predictor.parameters())


def test_predicted_boxes_and_probabilities():
    predictor = make_predictor()
    proposals = labelled_proposals()
    logits, deltas = torch.randn(7, 4), torch.randn(7, 12)
    boxes = predictor.predict_boxes((logits, deltas), proposals)
    assert [b.shape for b in boxes] == [(4, 12), (3, 12)]
    expected = predictor.box2box_transform.apply_deltas(
        deltas[:4, 8:], proposals[0].proposal_boxes.tensor
    )
    assert torch.allclose(boxes[0][:, 8:], expected)
    probs = predictor.predict_probs((logits, deltas), proposals)
    assert torch.allclose(torch.cat(probs), logits.softmax(1))


def test_initial_predictor():
    predictor = make_predictor(num_classes=200)
    assert predictor.cls_score.weight.shape == (201, 6)
    assert predictor.bbox_pred.weight.shape == (800, 6)
    assert predictor.cls_score.weight.std().item() == pytest.approx(0.01, rel=0.15)
    assert predictor.bbox_pred.weight.std().item() == pytest.approx(0.001, rel=0.15)
    agnostic = make_predictor(num_classes=2, cls_agnostic_bbox_reg=True)
    assert agnostic.bbox_pred.weight.shape == (4, 6)


# Inference


def iou(a, b) -> float:
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (area - width * height)


@pytest.mark.parametrize("agnostic", [False, True])
def test_inference_against_a_loop(agnostic):
    torch.manual_seed(0)
    boxes = torch.cat([random_boxes(40, 40) for _ in range(1 if agnostic else 3)], dim=1)
    scores = torch.randn(40, 4).mul(2).softmax(1)
    boxes[7, 0] = float("inf")
    candidates = []
    for i in range(40):
        for c in range(3):
            if i != 7 and scores[i, c] > 0.1:
                x0, y0, x1, y1 = boxes[i].view(-1, 4)[0 if agnostic else c].tolist()
                box = [min(x0, 80), min(y0, 64), min(x1, 80), min(y1, 64)]
                candidates.append((scores[i, c].item(), box, c, i))
    kept = []
    for candidate in sorted(candidates, reverse=True):
        if all(k[2] != candidate[2] or iou(k[1], candidate[1]) <= 0.3 for k in kept):
            kept.append(candidate)
    kept = kept[:15]
    (result,), (indices,) = fast_rcnn_inference([boxes], [scores], [SIZE], 0.1, 0.3, 15)
    assert result.image_size == SIZE
    assert result.scores.tolist() == pytest.approx([k[0] for k in kept])
    assert result.pred_classes.tolist() == [k[2] for k in kept]
    assert torch.allclose(result.pred_boxes.tensor, torch.tensor([k[1] for k in kept]))
    # Detectron2 counts among the finite rows only, hence no row after the infinite one is compared.
    first = [k[3] for k in kept if k[3] < 7]
    assert [i for i in indices.tolist() if i < 7] == first


def test_inference_that_finds_nothing():
    predictor = make_predictor(test_score_thresh=0.99)
    proposals = labelled_proposals()
    results, indices = predictor.inference((torch.zeros(7, 4), torch.zeros(7, 12)), proposals)
    assert [len(r) for r in results] == [0, 0]
    assert [len(i) for i in indices] == [0, 0]
    assert results[0].pred_boxes.tensor.shape == (0, 4)


# Mask head


def make_mask_head(**overrides) -> MaskRCNNConvUpsampleHead:
    arguments = {"num_classes": NUM_CLASSES, "conv_dims": [8, 8, 6]}
    return MaskRCNNConvUpsampleHead(ShapeSpec(4, 7, 7), **{**arguments, **overrides})


def test_mask_head_layers_and_keys():
    head = make_mask_head()
    names = ("mask_fcn1", "mask_fcn2", "deconv", "predictor")
    assert set(head.state_dict()) == {f"{n}.{p}" for n in names for p in ("weight", "bias")}
    assert head.deconv.weight.shape == (8, 6, 2, 2)
    x = torch.randn(2, 4, 7, 7)
    hidden = F.relu(head.deconv(head.mask_fcn2(head.mask_fcn1(x))))
    assert torch.allclose(head.layers(x), head.predictor(hidden), atol=1e-6)
    assert head.layers(x).shape == (2, 3, 14, 14)
    assert "mask_fcn1.bias" not in make_mask_head(conv_norm="BN").state_dict()


def mask_proposals() -> list[Instances]:
    torch.manual_seed(0)
    boxes = torch.tensor([[3.2, 4.1, 40.3, 30.9], [0.0, 0, 60, 50]])
    proposals = [make_proposals(boxes), make_proposals(boxes[:0])]
    proposals[0].gt_classes = torch.tensor([2, 0])
    proposals[0].gt_masks = PolygonMasks([[rectangle(0, 0, 30, 20)], [rectangle(9, 9, 70, 60)]])
    proposals[1].gt_classes = torch.zeros(0, dtype=torch.int64)
    proposals[1].gt_masks = PolygonMasks([])
    return proposals


@pytest.mark.parametrize("classes", [NUM_CLASSES, 1])
@pytest.mark.parametrize("kind", ["polygons", "bitmaps"])
def test_mask_loss_against_a_loop(classes, kind):
    proposals = mask_proposals()
    if kind == "bitmaps":
        for p in proposals:
            p.gt_masks = BitMasks.from_polygon_masks(p.gt_masks, *SIZE)
    logits = torch.randn(2, classes, 6, 6)
    total = 0.0
    for i in range(2):
        box = proposals[0].proposal_boxes.tensor[i : i + 1]
        truth = proposals[0].gt_masks[i].crop_and_resize(box, 6)[0].float()
        c = 0 if classes == 1 else proposals[0].gt_classes[i]
        p = logits[i, c].sigmoid()
        total += -(truth * p.log() + (1 - truth) * (1 - p).log()).sum().item()
        assert 0 < truth.mean() < 1
    with EventStorage() as storage:
        loss = mask_rcnn_loss(logits, proposals)
    assert loss.item() == pytest.approx(total / 72, rel=1e-4)
    assert 0 <= storage.latest()["mask_rcnn/accuracy"][0] <= 1


def test_mask_loss_of_nothing_has_a_gradient():
    logits = torch.zeros(0, 3, 6, 6, requires_grad=True)
    with EventStorage():
        loss = mask_rcnn_loss(logits, mask_proposals()[1:])
    assert loss.item() == 0
    loss.backward()


def test_mask_inference_takes_the_predicted_class():
    logits = torch.randn(3, NUM_CLASSES, 4, 4)
    instances = [Instances(SIZE), Instances(SIZE)]
    instances[0].pred_classes = torch.tensor([2, 1])
    instances[1].pred_classes = torch.tensor([0])
    mask_rcnn_inference(logits, instances)
    assert instances[0].pred_masks.shape == (2, 1, 4, 4)
    assert torch.allclose(instances[0].pred_masks[0, 0], logits[0, 2].sigmoid())
    assert torch.allclose(instances[1].pred_masks[0, 0], logits[2, 0].sigmoid())


# The heads together


def make_standard_heads(masks: bool) -> StandardROIHeads:
    torch.manual_seed(0)
    mask_arguments = {
        "mask_in_features": ["p3"],
        "mask_pooler": ROIPooler(7, [1 / 8], 0, "ROIAlignV2"),
        "mask_head": make_mask_head(loss_weight=2.0),
    }
    return StandardROIHeads(
        num_classes=NUM_CLASSES,
        batch_size_per_image=16,
        positive_fraction=0.25,
        proposal_matcher=Matcher([0.5], [0, 1]),
        box_in_features=["p3", "p4"],
        box_pooler=ROIPooler(5, [1 / 8, 1 / 16], 0, "ROIAlignV2"),
        box_head=FastRCNNConvFCHead(ShapeSpec(4, 5, 5), conv_dims=[], fc_dims=[6]),
        box_predictor=make_predictor(test_score_thresh=0.0, test_topk_per_image=5),
        **(mask_arguments if masks else {}),
    )


@pytest.mark.parametrize("masks", [True, False])
def test_standard_heads_train_and_test(masks):
    heads = make_standard_heads(masks)
    features = {"p3": torch.randn(2, 4, 8, 10), "p4": torch.randn(2, 4, 4, 5)}
    targets = [make_targets(2), make_targets(1)]
    proposals = [make_proposals(random_boxes(9)) for _ in range(2)]
    with EventStorage():
        sampled, losses = heads.train()(None, features, proposals, targets)
    assert len(sampled) == 2
    assert set(losses) == {"loss_cls", "loss_box_reg"} | ({"loss_mask"} if masks else set())
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in heads.parameters())
    with torch.no_grad():
        detections, losses = heads.eval()(None, features, proposals)
        assert losses == {}
        assert [len(d) for d in detections] == [5, 5]
        assert detections[0].has("pred_masks") == masks


def test_arguments_may_come_from_a_config():
    # Lazy configs hand over omegaconf's own lists and dicts.
    config = OmegaConf.create({"weights": [10.0, 10.0, 5.0, 5.0], "loss": {"loss_cls": 2.0}})
    predictor = make_predictor(
        box2box_transform=Box2BoxTransform(config.weights), loss_weight=config.loss
    )
    proposals = labelled_proposals()
    predictions = torch.randn(7, 4), torch.randn(7, 12)
    with EventStorage():
        weighted = predictor.losses(predictions, proposals)
        plain = make_predictor().losses(predictions, proposals)
    assert torch.allclose(weighted["loss_cls"], 2 * plain["loss_cls"])
    assert torch.allclose(weighted["loss_box_reg"], plain["loss_box_reg"])
