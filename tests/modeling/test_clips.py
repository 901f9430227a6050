"""Blocks and downsampling on maps of clips, Tensor[B, T, H, W, C]."""

import pytest
import torch
from torch import nn

from iwin_d2.benchmark.published import PublishedBlock, PublishedDownsample
from iwin_d2.modeling.blocks import DepthwiseConv, Downsample, IwinBlock
from iwin_d2.ops import use_backend

SHAPES = [(2, 3, 7, 8, 16), (1, 1, 2, 9, 16), (3, 2, 6, 6, 16)]


@pytest.fixture(params=["inference", "training", "reference"])
def way(request):
    """One operator, several, or plain PyTorch."""
    backend = "reference" if request.param == "reference" else "auto"
    with use_backend(backend), torch.set_grad_enabled(request.param != "inference"):
        yield request.param


def made(kind, *args, **kwargs):
    torch.manual_seed(0)
    return kind(*args, **kwargs).eval()


def assert_same(result, expected, tolerance=1e-5):
    torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance)


def frame_by_frame(module, x):
    return torch.stack([module(frame) for frame in x.unbind(1)], 1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("depthwise", [True, False])
def test_a_block_is_the_published_formulation(way, shape, depthwise):
    block = made(IwinBlock, 16, 2, 3, depthwise=depthwise)
    nn.init.normal_(block.attn.qkv.weight, std=0.5)  # attention that is far from uniform
    published = made(PublishedBlock, 16, 2, 3, depthwise=depthwise)
    published.load_state_dict(block.state_dict())
    x = torch.randn(shape)
    assert_same(block(x), published(x))


def test_gradients_of_a_block_are_those_of_the_published_formulation():
    block, published = (made(kind, 16, 2, 3) for kind in (IwinBlock, PublishedBlock))
    gradients = []
    for module in (block, published):
        torch.manual_seed(1)
        x = torch.randn(2, 3, 7, 8, 16, requires_grad=True)
        out = module(x)
        gradients.append(torch.autograd.grad(out, (x, *module.parameters()), torch.randn_like(out)))
    for grad, expected in zip(*gradients, strict=True):
        size = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-4 * size)


def test_a_clip_of_one_frame_is_an_image(way):
    block = made(IwinBlock, 16, 2, 3)
    x = torch.randn(2, 7, 8, 16)
    assert_same(block(x.unsqueeze(1)).squeeze(1), block(x))


def test_frames_mix_in_the_attention_alone(way):
    block = made(IwinBlock, 16, 2, 3)
    nn.init.zeros_(block.attn.proj.weight)
    x = torch.randn(2, 3, 7, 8, 16)
    assert_same(block(x), frame_by_frame(block, x))
    nn.init.normal_(block.attn.proj.weight)
    assert not torch.allclose(block(x), frame_by_frame(block, x), atol=1e-2)


def test_a_frame_apart_changes_its_window_in_the_others(way):
    """A window holds its tokens of every frame, and no token of another window."""
    window, place = 3, (4, 1)
    block = made(IwinBlock, 16, 2, window)
    x = torch.randn(1, 3, 6, 6, 16)
    before = block(x)
    x[0, 1, place[0], place[1], 5] += 1
    changed = (block(x) != before).any(-1)[0]
    reached = torch.zeros(6, 6, dtype=torch.bool)
    reached[place[0] % 2 :: 2, place[1] % 2 :: 2] = True
    assert torch.equal(changed[0], reached) and torch.equal(changed[2], reached)
    reached[3:6, 0:3] = True  # what the convolution sees, in its own frame alone
    assert torch.equal(changed[1], reached)


@pytest.mark.parametrize("shape", SHAPES)
def test_downsampling_takes_each_frame_for_itself(way, shape):
    downsample = made(Downsample, 16)
    published = made(PublishedDownsample, 16)
    x = torch.randn(shape)
    out = downsample(x)
    assert out.shape == (*shape[:2], (shape[2] + 1) // 2, (shape[3] + 1) // 2, 32)
    assert_same(out, frame_by_frame(downsample, x))
    assert_same(out, published(x))


def test_the_convolution_takes_each_frame_for_itself(way):
    convolution = made(DepthwiseConv, 16)
    x = torch.randn(2, 3, 7, 8, 16)
    assert_same(convolution(x), frame_by_frame(convolution, x))


def test_a_convolution_with_hooks_sees_the_clip(way):
    block = made(IwinBlock, 16, 2, 3)
    x = torch.randn(2, 3, 7, 8, 16)
    expected = block(x)
    shapes = []
    block.dwconv.register_forward_hook(
        lambda _, args, out: shapes.append((args[0].shape, out.shape))
    )
    assert_same(block(x), expected)
    assert shapes == [(x.shape, x.shape)]


@pytest.mark.parametrize("layout", ["channels first", "every second frame", "transposed"])
def test_clips_with_other_strides(way, layout):
    x = torch.randn(2, 4, 7, 8, 16)
    strided = {
        "channels first": x.permute(0, 4, 1, 2, 3).contiguous().permute(0, 2, 3, 4, 1),
        "every second frame": x.repeat_interleave(2, 1)[:, ::2],
        "transposed": x.transpose(0, 1).contiguous().transpose(0, 1),
    }[layout]
    assert not strided.is_contiguous() and torch.equal(strided, x)
    for module in (made(IwinBlock, 16, 2, 3), made(Downsample, 16)):
        assert_same(module(strided), module(x))


def test_no_clip(way):
    x = torch.randn(0, 3, 7, 8, 16)
    assert made(IwinBlock, 16, 2, 3)(x).shape == x.shape
    assert made(Downsample, 16)(x).shape == (0, 3, 4, 4, 32)


def test_compiles_and_exports():
    module = made(lambda: nn.Sequential(IwinBlock(16, 2, 3), Downsample(16)))
    x, other = torch.randn(2, 3, 7, 8, 16), torch.randn(2, 3, 10, 5, 16)
    torch.compiler.reset()
    with torch.no_grad(), use_backend("auto"):
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        assert_same(compiled(x), module(x))
        sides = {2: torch.export.Dim("height", min=4), 3: torch.export.Dim("width", min=4)}
        program = torch.export.export(module, (x,), dynamic_shapes=(sides,))
        for clip in (x, other):
            assert_same(program.module()(clip), module(clip))
