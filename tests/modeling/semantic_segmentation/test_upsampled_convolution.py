"""A convolution of upsampled maps, split by levels, is the convolution itself."""

import pytest
import torch
from torch import nn

from iwin_d2.d2.layers import Conv2d
from iwin_d2.modeling.semantic_segmentation import upsampled
from iwin_d2.modeling.semantic_segmentation.head import conv_norm_relu, resize
from iwin_d2.modeling.semantic_segmentation.upsampled import _can_split, conv_of_upsampled

SIZES = [
    [(12, 16), (6, 8), (3, 4), (2, 2)],  # exact halves, nearly
    [(9, 11), (5, 6), (3, 3), (1, 2)],
    [(1, 1), (1, 1)],
    [(3, 5), (7, 9)],  # a finer one comes second: brought down
    [(4, 4)],
]


def make(sizes, dtype=torch.float64, channels=4, batch=2):
    torch.manual_seed(0)
    maps = [torch.randn(batch, channels + i, *size, dtype=dtype) for i, size in enumerate(sizes)]
    total = sum(x.shape[1] for x in maps)
    return conv_norm_relu(total, 5, 3, "BN").to(dtype), [x.requires_grad_() for x in maps]


def plainly(conv, maps):
    return conv(torch.cat([resize(x, maps[0].shape[-2:]) for x in maps], dim=1))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients(sizes, memory_format, training):
    conv, maps = make(sizes)
    conv.train(training)
    inputs = [x.contiguous(memory_format=memory_format) for x in maps]
    assert _can_split(conv, inputs)
    found, expected = conv_of_upsampled(conv, inputs), plainly(conv, inputs)
    torch.testing.assert_close(found, expected)
    cotangent = torch.randn_like(expected)
    ours, theirs = (
        torch.autograd.grad(y, [*maps, *conv.parameters()], cotangent) for y in (found, expected)
    )
    torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        torch.testing.assert_close(conv_of_upsampled(conv, inputs), found)


def test_float32_agrees_as_two_orders_of_summing_do():
    conv, maps = make(SIZES[1], torch.float32, channels=40)
    conv.eval()
    with torch.no_grad():
        found, expected = conv_of_upsampled(conv, maps), plainly(conv, maps)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_bias_without_a_norm():
    conv = Conv2d(8, 3, 3, padding=1).double()
    maps = [torch.randn(1, 4, *size, dtype=torch.float64) for size in ((6, 6), (3, 2))]
    assert _can_split(conv, maps)
    torch.testing.assert_close(conv_of_upsampled(conv, maps), plainly(conv, maps))


def other(change):
    conv, maps = make(SIZES[0], torch.float32)
    total = conv.in_channels
    if change == "half precision":
        return conv.bfloat16(), [x.bfloat16() for x in maps]
    if change == "a hook":
        conv.register_forward_hook(lambda module, args, output: output)
    elif change == "a parametrisation":
        nn.utils.parametrizations.weight_norm(conv)
    elif change == "stride":
        conv = Conv2d(total, 5, 3, padding=1, stride=2)
    elif change == "dilation":
        conv = Conv2d(total, 5, 3, padding=1, dilation=2)
    elif change == "circular padding":
        conv = Conv2d(total, 5, 3, padding=1, padding_mode="circular")
    elif change == "kernel":
        conv = Conv2d(total, 5, 1)
    elif change == "another module":
        conv = nn.Sequential(nn.Conv2d(total, 5, 3, padding=1), nn.Tanh())
    return conv, maps


@pytest.mark.parametrize(
    "change",
    [
        "half precision",
        "a hook",
        "a parametrisation",
        "stride",
        "dilation",
        "circular padding",
        "kernel",
        "another module",
    ],
)
def test_what_is_no_plain_convolution_is_called(change):
    conv, maps = other(change)
    assert not _can_split(conv, maps)
    torch.testing.assert_close(conv_of_upsampled(conv, maps), plainly(conv, maps))


def test_mixed_precision_calls_the_convolution():
    conv, maps = make(SIZES[0], torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert not _can_split(conv, maps)
        assert conv_of_upsampled(conv, maps).dtype == torch.bfloat16


def test_very_large_maps_call_the_convolution(monkeypatch):
    conv, maps = make(SIZES[0])
    monkeypatch.setattr(upsampled, "_LARGEST", 15)
    assert not _can_split(conv, maps)
    monkeypatch.setattr(upsampled, "_LARGEST", 16)
    assert _can_split(conv, maps)
