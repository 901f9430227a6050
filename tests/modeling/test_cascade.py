"""How the cascade trains; test_golden_detectors.py has what it computes."""

import re

import pytest
import torch
from shrunken import shrunken_cascade

from iwin_d2.d2.config import instantiate
from iwin_d2.d2.structures import BitMasks, Boxes, Instances
from iwin_d2.d2.utils.events import EventStorage


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
    model = instantiate(shrunken_cascade()).train()
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
    model = instantiate(shrunken_cascade()).train()
    batch = training_batch(model)
    batch[0]["instances"] = batch[0]["instances"][:0]
    with EventStorage():
        for images in (batch, batch[:1]):
            losses = model(images)
            assert all(torch.isfinite(value) for value in losses.values())
            sum(losses.values()).backward()


@pytest.mark.parametrize("num_images", [1, 2])
def test_images_without_proposals_have_no_detections(num_images):
    """As where no value of the maps is a number any more."""
    model = instantiate(shrunken_cascade()).eval()
    features = {f"p{level}": torch.zeros(num_images, 16, 8, 8) for level in range(2, 6)}
    nothing = Instances((64, 64))
    nothing.proposal_boxes, nothing.objectness_logits = Boxes(torch.zeros(0, 4)), torch.zeros(0)
    with torch.no_grad():
        detections, _ = model.roi_heads(None, features, [nothing] * num_images)
    assert [len(found) for found in detections] == [0] * num_images


def test_stage_weights_scale_every_loss_of_a_stage():
    def losses(weights):
        config = shrunken_cascade()
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
    model = instantiate(shrunken_cascade())
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
    config = shrunken_cascade()
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
    config = shrunken_cascade()
    config.roi_heads.stage_loss_weights = [1.0, 0.5]
    with pytest.raises(Exception, match="one entry a stage"):
        instantiate(config)


def test_infinite_weights_are_said_to_be_so():
    model = instantiate(shrunken_cascade()).eval()
    model.roi_heads.box_predictor[0].bbox_pred.bias.data.fill_(float("nan"))
    with torch.no_grad(), pytest.raises(FloatingPointError, match="stage 0"):
        model(training_batch(model))
