"""Maps with more than 2^31 numbers, where 32 bits do not count far enough."""

import pytest
import torch
import torch.nn.functional as F
from small_models import DEVICE, assert_close

from iwin_d2.ops import (
    interleaved_window_attention,
    interleaved_window_merge,
    interleaved_window_partition,
    use_backend,
)
from iwin_d2.ops.bias_gelu import bias_gelu
from iwin_d2.ops.depthwise_conv import depthwise_conv_add

MANY = 2**31
DTYPE = torch.bfloat16
CHANNELS = 96


@pytest.fixture(autouse=True)
def nothing_but_kernels(on_a_gpu):
    """The operators never run in plain PyTorch instead."""
    with use_backend("compiled"):
        yield


def random(*shape):
    """Random numbers, made where they are needed: the CPU would take its time."""
    generator = torch.Generator(DEVICE).manual_seed(len(shape))
    return torch.empty(shape, device=DEVICE, dtype=DTYPE).normal_(generator=generator)


def attend(qkv, pad, grad):
    """Return the result and the gradients of qkv and pad."""
    leaves = [x.detach().requires_grad_() for x in (qkv, pad)]
    out = interleaved_window_attention(leaves[0], 3, 7, leaves[1])
    return out.detach(), *torch.autograd.grad(out, leaves, grad)


def test_attention_on_one_large_map(free_memory):
    free_memory(20)
    side = 2736  # 391 windows a side, the last row and column of each padding
    qkv, pad = random(1, side, side, 3 * CHANNELS), random(3 * CHANNELS)
    assert qkv.numel() > MANY
    with torch.no_grad():
        out = interleaved_window_attention(qkv, 3, 7, pad)
    groups = -(-side // 7)
    for a, b in ((0, 0), (groups - 1, groups - 1), (200, 3)):
        rows, columns = (torch.arange(x, side, groups, device=DEVICE) for x in (a, b))
        tokens = qkv[0, rows][:, columns].flatten(0, 1).double()
        padding = 49 - len(tokens)
        tokens = torch.cat((tokens, pad.double().expand(padding, -1)))
        q, k, v = tokens.unflatten(1, (3, 3, CHANNELS // 3)).permute(1, 2, 0, 3)
        weights = (q @ k.transpose(1, 2) * (CHANNELS // 3) ** -0.5).softmax(-1)
        expected = (weights @ v).transpose(0, 1).flatten(1)[: len(rows) * len(columns)]
        assert_close(out[0, rows][:, columns].flatten(0, 1), expected, 1e-2)


def test_attention_forward_and_backward_on_a_large_batch(free_memory):
    free_memory(30)
    batch = MANY // (13 * 14 * 3 * CHANNELS) + 3
    qkv, pad = random(batch, 13, 14, 3 * CHANNELS), random(3 * CHANNELS)
    grad = random(batch, 13, 14, CHANNELS)
    out, grad_qkv, grad_pad = attend(qkv, pad, grad)
    assert grad_pad.isfinite().all()
    for images in (slice(0, 2), slice(-4, None)):
        expected = attend(qkv[images], pad, grad[images])
        assert torch.equal(out[images], expected[0])
        assert torch.equal(grad_qkv[images], expected[1])


@pytest.mark.parametrize("odd", [0, 3])
def test_attention_on_images_far_apart(free_memory, odd):
    """Few numbers, with strides that lead far; `odd` ones past what 16 bytes are aligned with."""
    free_memory(20)
    memory = torch.empty(3, MANY // 2 + 8 + odd, device=DEVICE, dtype=DTYPE)
    apart = memory[:, : 9 * 10 * 3 * CHANNELS].view(3, 9, 10, 3 * CHANNELS)
    together, pad, grad = random(*apart.shape), random(3 * CHANNELS), random(3, 9, 10, CHANNELS)
    apart.copy_(together)
    far_grad = memory[:, -9 * 10 * CHANNELS :].view(3, 9, 10, CHANNELS).copy_(grad)
    for result, expected in zip(attend(apart, pad, far_grad), attend(together, pad, grad)):
        assert torch.equal(result, expected)


def test_partition_and_merge(free_memory):
    free_memory(20)
    side, window = 46400, 7
    x = torch.randint(256, (1, side, side, 1), device=DEVICE, dtype=torch.uint8)
    assert x.numel() > MANY
    windows = interleaved_window_partition(x, window)
    groups = -(-side // window)
    for a, b in ((0, 0), (groups - 1, groups - 1), (17, 4000)):
        expected = F.pad(x[0, a::groups, b::groups, 0], (0, 1, 0, 1))[:window, :window]
        found = windows[a * groups + b].view(window, window)
        assert torch.equal(found, expected)
    assert torch.equal(interleaved_window_merge(windows, window, (side, side)), x)


def test_depthwise_convolution(free_memory):
    free_memory(40)
    batch = MANY // (40 * 50 * CHANNELS) + 3
    x, other = random(batch, 40, 50, CHANNELS), random(batch, 40, 50, CHANNELS)
    weight, bias = random(CHANNELS, 1, 3, 3), random(CHANNELS)

    def run(images):
        leaves = [t.detach().requires_grad_() for t in (x[images], weight, bias)]
        out = depthwise_conv_add(*leaves, other[images])
        return out.detach(), *torch.autograd.grad(out, leaves, other[images])

    out, grad_x, grad_weight, grad_bias = run(slice(None))
    for images in (slice(0, 2), slice(-4, None)):
        expected = run(images)
        assert torch.equal(out[images], expected[0])
        assert torch.equal(grad_x[images], expected[1])
    # Of halves, and the halves in float32: the sums of bfloat16 would be as far from each other.
    halves = [run(slice(0, batch // 2)), run(slice(batch // 2, None))]
    for whole, index in ((grad_weight, 2), (grad_bias, 3)):
        assert_close(whole, sum(half[index].float() for half in halves), 3e-2)


def test_bias_gelu(free_memory):
    free_memory(30)
    rows = MANY // 384 + 5
    x, bias = random(rows, 384).requires_grad_(), random(384).requires_grad_()
    out = bias_gelu(x, bias)
    grad_x, _ = torch.autograd.grad(out, (x, bias), out.detach())
    for some in (slice(0, 9), slice(-9, None)):
        total = (x[some].detach().double() + bias.detach().double()).requires_grad_()
        expected = F.gelu(total)
        assert_close(out[some], expected, 1e-2)
        (slope,) = torch.autograd.grad(expected, total, out[some].detach().double())
        assert_close(grad_x[some], slope, 2e-2)
