"""The cascade against the reference implementation's outputs, and its training behaviour."""

import re
from pathlib import Path

import pytest
import torch
from pycocotools import mask as coco_mask

from iwin_d2.d2.config import LazyConfig, instantiate
from iwin_d2.d2.modeling import detector_postprocess
from iwin_d2.d2.structures import BitMasks, Boxes, ImageList, Instances
from iwin_d2.d2.utils.events import EventStorage

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs/common/models/cascade_mask_rcnn_iwin.py"

# Published (MMDetection 2) names to ours; the converter proper is iwin_d2.checkpoint's task.
RENAMES = [
    (r"^backbone\.", "backbone.bottom_up."),
    (r"^rpn_head\.rpn_conv\.", "proposal_generator.rpn_head.conv."),
    (r"^rpn_head\.rpn_cls\.", "proposal_generator.rpn_head.objectness_logits."),
    (r"^rpn_head\.rpn_reg\.", "proposal_generator.rpn_head.anchor_deltas."),
    (r"^roi_head\.bbox_head\.(\d)\.fc_cls\.", r"roi_heads.box_predictor.\1.cls_score."),
    (r"^roi_head\.bbox_head\.(\d)\.fc_reg\.", r"roi_heads.box_predictor.\1.bbox_pred."),
    (r"^roi_head\.mask_head\.(\d)\.upsample\.", r"roi_heads.mask_head.\1.deconv."),
    (r"^roi_head\.mask_head\.(\d)\.conv_logits\.", r"roi_heads.mask_head.\1.predictor."),
]
NUMBERED = [
    (r"^neck\.lateral_convs\.(\d)\.conv\.", "backbone.fpn_lateral{}.", 2),
    (r"^neck\.fpn_convs\.(\d)\.conv\.", "backbone.fpn_output{}.", 2),
    (r"^roi_head\.bbox_head\.(\d)\.shared_convs\.(\d)\.conv\.", "roi_heads.box_head.{}.conv{}.", 1),
    (
        r"^roi_head\.bbox_head\.(\d)\.shared_convs\.(\d)\.bn\.",
        "roi_heads.box_head.{}.conv{}.norm.",
        1,
    ),
    (r"^roi_head\.bbox_head\.(\d)\.shared_fcs\.(\d)\.", "roi_heads.box_head.{}.fc{}.", 1),
    (r"^roi_head\.mask_head\.(\d)\.convs\.(\d)\.conv\.", "roi_heads.mask_head.{}.mask_fcn{}.", 1),
]


def our_name(name):
    for pattern, replacement in RENAMES:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name)
    for pattern, template, first in NUMBERED:
        match = re.match(pattern, name)
        if match:
            *stage, index = match.groups()
            return template.format(*stage, int(index) + first) + name[match.end() :]
    raise KeyError(name)


def shrunken_config(num_classes=5, channels=16, fc=32, convs=4):
    model = LazyConfig.load(str(CONFIG)).model
    model.backbone.bottom_up.update(embed_dim=16, depths=[1, 1, 2, 1], num_heads=[2, 4, 8, 16])
    model.backbone.out_channels = channels
    model.proposal_generator.head.in_channels = channels
    model.roi_heads.num_classes = num_classes
    for head in model.roi_heads.box_heads:
        head.input_shape.channels = channels
        head.update(conv_dims=[channels] * convs, fc_dims=[fc])
    for predictor in model.roi_heads.box_predictors:
        predictor.input_shape.channels = fc
    for head in model.roi_heads.mask_heads:
        head.input_shape.channels = channels
        head.conv_dims = [channels] * 5
    return model


@pytest.fixture(scope="module")
def golden():
    return torch.load(ROOT / "tests/golden/cascade_mask_rcnn.pt", weights_only=True)


@pytest.fixture(scope="module")
def golden_model(golden):
    model = instantiate(shrunken_config(golden["num_classes"])).eval()
    weights = {our_name(key): value.float() for key, value in golden["state_dict"].items()}
    weights = {k: v.long() if k.endswith("tracked") else v for k, v in weights.items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all("anchor" in key or key.startswith("pixel") for key in missing), missing
    return model


@pytest.fixture(scope="module")
def features(golden, golden_model):
    with torch.no_grad():
        return golden_model.backbone(golden["cases"][0]["image"].float())


def test_golden_feature_maps(golden, features):
    for expected, actual in zip(golden["cases"][0]["fpn"], features.values(), strict=True):
        assert actual.shape == expected.shape
        assert (actual - expected).abs().max() / expected.abs().max() < 1e-4


def find_proposals(golden, model, features):
    case = golden["cases"][0]
    images = ImageList(case["image"].float(), [case["image_size"]])
    with torch.no_grad():
        return images, model.proposal_generator(images, features, None)[0]


def test_golden_proposals(golden, golden_model, features):
    _, (proposals,) = find_proposals(golden, golden_model, features)
    expected = golden["cases"][0]["proposals"]
    distance = torch.cdist(expected[:, :4], proposals.proposal_boxes.tensor, p=float("inf"))
    nearest, index = distance.min(1)
    score = proposals.objectness_logits.sigmoid()[index]
    matched = (nearest < 0.05) & ((score - expected[:, 4]).abs() < 1e-3)
    # The reference keeps proposals of zero area, which take places of the 1000.
    assert matched.float().mean() > 0.95


def test_golden_detections(golden, golden_model, features):
    case = golden["cases"][0]
    images, proposals = find_proposals(golden, golden_model, features)
    with torch.no_grad():
        detections, _ = golden_model.roi_heads(images, features, proposals)
    found = detector_postprocess(detections[0], *case["original_size"])
    masks = coco_mask.decode(case["masks"])

    matched = 0
    for i, (box, score, label) in enumerate(zip(case["boxes"], case["scores"], case["labels"])):
        distance = (found.pred_boxes.tensor - box).abs().amax(1)
        distance[found.pred_classes != label] = float("inf")
        nearest, j = distance.min(0)
        if nearest > 0.05 or (found.scores[j] - score).abs() > 1e-3:
            continue
        ours, truth = found.pred_masks[j].numpy().astype(bool), masks[:, :, i].astype(bool)
        union = (ours | truth).sum()
        matched += union == 0 or (ours & truth).sum() / union >= 0.99
    assert matched >= 95


def training_batch(model, num_images=2, size=96):
    generator = torch.Generator().manual_seed(0)
    batch = []
    for _ in range(num_images):
        instances = Instances((size, size))
        instances.gt_boxes = Boxes(torch.tensor([[8.0, 8, 56, 48], [40.0, 50, 90, 90]]))
        instances.gt_classes = torch.tensor([1, 3])
        masks = torch.zeros(2, size, size, dtype=torch.bool)
        masks[0, 8:48, 8:56] = masks[1, 50:90, 40:90] = True
        instances.gt_masks = BitMasks(masks)
        image = torch.randint(0, 255, (3, size, size), generator=generator, dtype=torch.uint8)
        batch.append({"image": image, "instances": instances, "height": size, "width": size})
    return batch


def test_training_losses_and_gradients():
    torch.manual_seed(0)
    model = instantiate(shrunken_config()).train()
    with EventStorage() as storage:
        losses = model(training_batch(model))
        names = {
            f"{name}_stage{i}"
            for name in ("loss_cls", "loss_box_reg", "loss_mask")
            for i in range(3)
        }
        assert set(losses) == names | {"loss_rpn_cls", "loss_rpn_loc"}
        assert all(torch.isfinite(value) and value >= 0 for value in losses.values())
        assert any(key.startswith("stage2/") for key in storage.latest())
    sum(losses.values()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without  # so that DistributedDataParallel need not look for unused parameters


def test_an_image_without_objects_trains():
    torch.manual_seed(0)
    model = instantiate(shrunken_config()).train()
    batch = training_batch(model)
    batch[0]["instances"] = batch[0]["instances"][:0]
    with EventStorage():
        for images in (batch, batch[:1]):
            losses = model(images)
            assert all(torch.isfinite(value) for value in losses.values())
            sum(losses.values()).backward()


def test_stage_weights_scale_every_loss_of_a_stage():
    def losses(weights):
        config = shrunken_config()
        config.roi_heads.stage_loss_weights = weights
        torch.manual_seed(0)
        model = instantiate(config).train()
        torch.manual_seed(1)
        with EventStorage():
            return model(training_batch(model))

    plain, weighted = losses([1.0, 1.0, 1.0]), losses([1.0, 0.5, 0.25])
    for name, value in plain.items():
        stage = re.search(r"_stage(\d)", name)
        factor = [1.0, 0.5, 0.25][int(stage[1])] if stage else 1.0
        torch.testing.assert_close(weighted[name], value * factor)


def test_refinement_takes_the_true_class_for_foreground_and_the_best_for_background():
    model = instantiate(shrunken_config())
    heads = model.roi_heads
    sampled = Instances((100, 100))
    sampled.proposal_boxes = Boxes(
        torch.tensor([[10.0, 10, 30, 30], [50.0, 50, 70, 70], [0.0, 0, 9, 9]])
    )
    sampled.objectness_logits = torch.zeros(3)
    sampled.gt_classes = torch.tensor([2, 5, 1])  # 5 is the background
    sampled.gt_boxes = Boxes(torch.tensor([[12.0, 10, 30, 30], [0.0, 0, 9, 9], [0.0, 0, 9, 9]]))
    logits = torch.zeros(3, 6)
    logits[:, 4] = 1.0  # the best class of all
    deltas = torch.zeros(3, 5, 4)
    deltas[:, :, 0] = torch.arange(5.0) * heads.box_predictor[0].box2box_transform.weights[0] / 20
    (refined,) = heads._refine_sampled(0, (logits, deltas.flatten(1)), [sampled])
    # dx is in units of the box's width: class 2 moves 2 px, class 4 moves 4 px; the third box is
    # the true one itself, which the next stage appends anew.
    assert torch.allclose(
        refined.proposal_boxes.tensor, torch.tensor([[12.0, 10, 32, 30], [54.0, 50, 74, 70]])
    )


def test_boxes_alone():
    config = shrunken_config()
    config.roi_heads.update(mask_in_features=None, mask_pooler=None, mask_heads=None)
    model = instantiate(config)
    batch = training_batch(model)
    for item in batch:
        item["instances"].remove("gt_masks")
    with EventStorage():
        assert not any("mask" in name for name in model.train()(batch))
    with torch.no_grad():
        output = model.eval()(batch)[0]["instances"]
    assert not output.has("pred_masks")


def test_lists_of_different_lengths_are_named():
    config = shrunken_config()
    config.roi_heads.stage_loss_weights = [1.0, 0.5]
    with pytest.raises(Exception, match="one entry a stage"):
        instantiate(config)


def test_infinite_weights_are_said_to_be_so():
    model = instantiate(shrunken_config()).eval()
    model.roi_heads.box_predictor[0].bbox_pred.bias.data.fill_(float("nan"))
    with torch.no_grad(), pytest.raises(FloatingPointError, match="stage 0"):
        model(training_batch(model))
