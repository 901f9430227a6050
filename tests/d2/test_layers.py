"""Layers and box and mask operations against loops and numbers computed by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.d2.layers import (
    Conv2d,
    ConvTranspose2d,
    Linear,
    ROIAlign,
    ShapeSpec,
    batched_nms,
    cat,
    cross_entropy,
    get_norm,
    nonzero_tuple,
    paste_masks_in_image,
)
from iwin_d2.d2.structures import Boxes


def test_shape_spec_defaults():
    assert ShapeSpec(channels=3) == ShapeSpec(3, None, None, None)
    assert ShapeSpec(stride=4).stride == 4


@pytest.mark.parametrize("norm", ["BN", "SyncBN", "FrozenBN", "GN", "LN", nn.InstanceNorm2d])
def test_norms_train_in_a_single_process_on_cpu(norm):
    layer = get_norm(norm, 32).train()
    x = torch.randn(2, 32, 3, 3, requires_grad=True)
    y = layer(x)
    assert y.shape == x.shape
    y.square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert layer(x[:0]).shape == (0, 32, 3, 3)


def test_no_norm():
    assert get_norm("", 8) is None
    assert get_norm(None, 8) is None


def test_sync_bn_in_a_single_process_is_batch_norm():
    torch.manual_seed(0)
    x = torch.randn(3, 4, 5, 5)
    sync, plain = get_norm("SyncBN", 4), get_norm("BN", 4)
    assert torch.allclose(sync(x), plain(x), atol=1e-6)
    assert torch.allclose(sync.running_var, plain.running_var)


def test_layer_norm_is_over_channels():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 3, 4)
    layer = get_norm("LN", 6)
    nn.init.normal_(layer.weight)
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    expected = (x - mean) / (variance + 1e-6).sqrt() * layer.weight[:, None, None]
    assert torch.allclose(layer(x), expected, atol=1e-5)


def test_conv_applies_norm_then_activation():
    torch.manual_seed(0)
    conv = Conv2d(3, 4, 3, padding=1, bias=False, norm=get_norm("BN", 4), activation=F.relu)
    x = torch.randn(2, 3, 5, 5)
    expected = F.relu(nn.BatchNorm2d(4)(F.conv2d(x, conv.weight, padding=1)))
    assert torch.allclose(conv(x), expected, atol=1e-6)
    assert "norm.weight" in conv.state_dict()


def test_empty_batches_pass_through_layers():
    x = torch.zeros(0, 3, 4, 4, requires_grad=True)
    y = ConvTranspose2d(4, 2, 2, stride=2)(Conv2d(3, 4, 3, padding=1)(x))
    assert y.shape == (0, 2, 8, 8)
    Linear(128, 5)(y.flatten(1)).sum().backward()


def test_cross_entropy_of_nothing_is_zero_with_a_gradient():
    logits = torch.zeros(0, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(0, dtype=torch.int64))
    assert loss.item() == 0
    loss.backward()
    some = torch.randn(3, 4)
    target = torch.tensor([0, 3, 1])
    assert torch.equal(cross_entropy(some, target), F.cross_entropy(some, target))


def test_cat_and_nonzero():
    x = torch.tensor([[0, 1], [2, 0]])
    assert cat([x]) is x
    assert cat([x, x], dim=1).shape == (2, 4)
    assert [t.tolist() for t in nonzero_tuple(x)] == [[0, 1], [1, 0]]


def iou(a, b) -> float:
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (area - width * height)


def test_batched_nms_against_a_loop():
    torch.manual_seed(0)
    corner = torch.rand(60, 2) * 20
    boxes = torch.cat([corner, corner + 5 + torch.rand(60, 2) * 10], dim=1)
    scores, groups = torch.rand(60), torch.randint(0, 3, (60,))
    kept = []
    for i in scores.argsort(descending=True).tolist():
        rivals = [j for j in kept if groups[i] == groups[j]]
        if all(iou(boxes[i].tolist(), boxes[j].tolist()) <= 0.4 for j in rivals):
            kept.append(i)
    assert batched_nms(boxes, scores, groups, 0.4).tolist() == kept
    assert len(kept) < 60
    assert len(batched_nms(boxes[:0], scores[:0], groups[:0], 0.4)) == 0


def test_roi_align_of_a_ramp_gives_positions():
    # On a plane, bilinear interpolation is exact: the value at a cell is its centre's position.
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    feature = torch.stack([x, y])[None] + 0.5  # the value at a pixel's centre, in pixels
    rois = torch.tensor([[0, 8.0, 12, 24, 28], [0, 4, 4, 20, 12]])
    pooled = ROIAlign((2, 4), 0.5, 2)(feature, rois)
    assert pooled.shape == (2, 2, 2, 4)
    assert torch.allclose(pooled[0, 0, 0], torch.tensor([5.0, 7, 9, 11]))
    assert torch.allclose(pooled[0, 1, :, 0], torch.tensor([8.0, 12]))
    assert torch.allclose(pooled[1, 1, :, 0], torch.tensor([3.0, 5]))


def slow_paste(mask, box, height: int, width: int) -> torch.Tensor:
    """Look up every pixel's centre in the mask by bilinear interpolation, zeros around it."""
    size = len(mask)
    x0, y0, x1, y1 = box
    result = torch.zeros(height, width)
    for row in range(height):
        for column in range(width):
            v = (row + 0.5 - y0) / (y1 - y0) * size - 0.5
            u = (column + 0.5 - x0) / (x1 - x0) * size - 0.5
            for i in (math.floor(v), math.floor(v) + 1):
                for j in (math.floor(u), math.floor(u) + 1):
                    if 0 <= i < size and 0 <= j < size:
                        result[row, column] += (1 - abs(v - i)) * (1 - abs(u - j)) * mask[i][j]
    return result


def test_pasted_masks_against_a_loop():
    torch.manual_seed(0)
    masks = torch.rand(5, 6, 6)
    boxes = torch.tensor(
        [[2.3, 3.1, 9.7, 12.2], [-4, -3, 5, 6], [10, 8, 20, 19], [1, 1, 12, 12], [4, 4, 5.2, 4.9]]
    )
    pasted = paste_masks_in_image(masks, Boxes(boxes), (15, 14), threshold=0.5)
    grey = paste_masks_in_image(masks, boxes, (15, 14), threshold=-1)
    assert pasted.dtype == torch.bool
    assert grey.dtype == torch.uint8
    for mask, box, got, got_grey in zip(masks.tolist(), boxes.tolist(), pasted, grey):
        expected = slow_paste(mask, box, 15, 14)
        clear = (expected - 0.5).abs() > 1e-4
        assert torch.equal(got[clear], expected[clear] >= 0.5)
        assert (got_grey.float() - expected * 255).abs().max() < 1.01
    assert pasted.any(dim=(1, 2)).sum() >= 4


@pytest.mark.skipif(USE_DETECTRON2, reason="looks into the native implementation")
def test_pasting_many_at_once_is_pasting_one_by_one():
    from iwin_d2.native.layers import _paste

    torch.manual_seed(0)
    masks, boxes = torch.rand(4, 8, 8), torch.tensor([[2.3, 3.1, 30.7, 32.2]]).repeat(4, 1)
    boxes += torch.randn(4, 4) * 3
    at_once = _paste(masks, boxes, (0, 0, 34, 40)) >= 0.5
    assert torch.equal(at_once, paste_masks_in_image(masks, boxes, (40, 34)))


def test_pasting_odd_boxes():
    assert paste_masks_in_image(torch.zeros(0, 4, 4), Boxes([]), (5, 6)).shape == (0, 5, 6)
    whole = paste_masks_in_image(torch.ones(1, 4, 4), torch.tensor([[0.0, 0, 6, 5]]), (5, 6))
    assert whole[0, 1:-1, 1:-1].all()


@pytest.mark.skipif(USE_DETECTRON2, reason="Detectron2 fails on such boxes, on a CPU")
def test_pasting_outside_the_image():
    outside = torch.tensor([[50.0, 50, 60, 60], [-60, -60, -50, -50]])
    assert not paste_masks_in_image(torch.ones(2, 4, 4), outside, (5, 6)).any()
