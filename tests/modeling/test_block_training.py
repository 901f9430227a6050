"""A block with gradients: compiled operators inside it change no result, and no hook is missed."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as pruning
from torch.utils.checkpoint import checkpoint

from iwin_d2.modeling.blocks import IwinBlock
from iwin_d2.ops import extension, use_backend

needs_extension = pytest.mark.skipif(not extension.loaded(), reason=extension.reason() or "-")


def make_block(**kwargs):
    torch.manual_seed(0)
    return IwinBlock(16, 2, 3, **kwargs).train()


def plain(block, x):
    """What a block computes, written out with its parts called as modules."""
    y = block.norm1(x)
    x = x + block.attn(y) + (0 if block.dwconv is None else block.dwconv(y))
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))


def run(block, x, function=None):
    """Return the output and the gradients of the input and of all parameters."""
    x = x.detach().requires_grad_()
    out = block(x) if function is None else function(block, x)
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(out.shape, generator=generator).to(out.dtype)
    return out.detach(), *torch.autograd.grad(out, (x, *block.parameters()), grad)


def assert_same(results, expected, tolerance=1e-4):
    for result, x in zip(results, expected, strict=True):
        assert result.dtype == x.dtype
        size = max(1.0, x.abs().max().item())
        torch.testing.assert_close(result, x, rtol=tolerance, atol=tolerance * size)


def operators(block, x):
    """The names of the project's own operators that a training step calls."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True
    ) as profile:
        run(block, x)
    names = {event.key.removeprefix("iwin_d2::") for event in profile.key_averages()}
    return names & {
        "depthwise_conv_add",
        "depthwise_conv_backward",
        "bias_gelu",
        "bias_gelu_backward",
        "mlp",
        "mlp_backward",
    }


CONVOLUTION = {"depthwise_conv_add", "depthwise_conv_backward"}
GELU = {"bias_gelu", "bias_gelu_backward"}
MLP = {"mlp", "mlp_backward"}


@pytest.mark.parametrize("depthwise", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_to_the_parts(depthwise, dtype):
    block = make_block(depthwise=depthwise).to(dtype)
    x = torch.randn(2, 7, 5, 16, dtype=dtype)
    assert_same(run(block, x), run(block, x, plain), 1e-11 if dtype == torch.float64 else 1e-4)
    with use_backend("reference"):
        assert_same(run(block, x), run(block, x, plain), 1e-6)


@needs_extension
def test_a_training_step_runs_on_compiled_operators():
    assert operators(make_block(), torch.randn(1, 7, 5, 16)) == CONVOLUTION | MLP


def test_drop_path():
    block = make_block(drop_path=0.5)
    x = torch.randn(6, 4, 5, 16)
    results = []
    for name in ("auto", "reference"):
        torch.manual_seed(3)
        with use_backend(name):
            results.append(run(block, x))
    assert_same(*results)
    assert (results[0][0] == x).flatten(1).all(1).any()  # a row that dropped both paths


def test_autocast():
    block = make_block()
    x = torch.randn(2, 7, 5, 16)
    with torch.autocast("cpu", torch.bfloat16):
        results = run(block, x)
        expected = run(block, x, plain)
    assert_same(results, expected, 3e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(dtype):
    block = make_block().to(dtype)
    x = torch.randn(2, 7, 5, 16).to(dtype)
    assert_same(run(block, x), run(block, x, plain), 6e-2)


HOOKED = ("mlp.fc1", "mlp.fc2", "mlp", "dwconv", "dwconv.depthwise", "attn")


@pytest.mark.parametrize("name", HOOKED)
def test_a_forward_hook_sees_what_its_module_computes(name):
    block, x = make_block(), torch.randn(1, 7, 5, 16)
    expected = run(block, x)
    seen = []
    part = block.get_submodule(name)
    part.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    assert_same(run(block, x), expected)
    ((argument, output),) = seen
    part._forward_hooks.clear()
    torch.testing.assert_close(part(argument), output)


@pytest.mark.parametrize("name", HOOKED)
@pytest.mark.parametrize(
    "register",
    ["register_forward_pre_hook", "register_full_backward_hook", "register_full_backward_pre_hook"],
)
def test_other_hooks_are_called(name, register):
    block, x = make_block(), torch.randn(1, 7, 5, 16)
    calls = []
    getattr(block.get_submodule(name), register)(lambda *args: calls.append(name))
    run(block, x)
    assert calls == [name]


def test_hooks_for_all_modules_are_called():
    block, x = make_block(), torch.randn(1, 7, 5, 16)
    calls = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, output: calls.append(module)
    )
    try:
        run(block, x)
    finally:
        handle.remove()
    assert {*calls} >= {block.get_submodule(name) for name in HOOKED}


class Adapted(nn.Linear):
    """A linear layer with a term of its own, as adapters have it."""

    def forward(self, x):
        return super().forward(x) + x.mean(-1, keepdim=True)


def replace_fc1(block):
    block.mlp.fc1 = Adapted(16, 64)


def leave_out_bias(block):
    block.mlp.fc1 = nn.Linear(16, 64, bias=False)


def patch_forward(block):
    forward = block.mlp.fc1.forward
    block.mlp.fc1.forward = lambda x: 2 * forward(x)
    convolve = block.dwconv.depthwise.forward
    block.dwconv.depthwise.forward = lambda x: 2 * convolve(x)


def normalise_weights(block):
    parametrizations.weight_norm(block.mlp.fc1)
    parametrizations.weight_norm(block.dwconv.depthwise)


def prune(block):
    pruning.l1_unstructured(block.mlp.fc1, "weight", 0.5)
    pruning.l1_unstructured(block.dwconv.depthwise, "weight", 0.5)


def dilate(block):
    block.dwconv.depthwise = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16)


def wrap_around(block):
    block.dwconv.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, padding_mode="circular")


def mix_channels(block):
    block.dwconv.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=4)


def replace_convolution(block):
    block.dwconv = nn.Linear(16, 16)


@pytest.mark.parametrize(
    "change",
    [
        replace_fc1,
        leave_out_bias,
        patch_forward,
        normalise_weights,
        prune,
        dilate,
        wrap_around,
        mix_channels,
        replace_convolution,
    ],
)
def test_changed_parts_keep_their_say(change):
    block, x = make_block(), torch.randn(1, 7, 5, 16)
    before = run(block, x)[0]
    change(block)
    results = run(block, x)
    assert_same(results, run(block, x, plain))
    assert not torch.allclose(results[0], before)


@needs_extension
def test_one_changed_part_leaves_the_other_compiled():
    x = torch.randn(1, 7, 5, 16)
    block = make_block()
    block.mlp.fc1.register_forward_hook(lambda *args: None)
    assert operators(block, x) == CONVOLUTION
    block = make_block()
    block.mlp.fc2.register_forward_hook(lambda *args: None)
    assert operators(block, x) == CONVOLUTION | GELU
    block = make_block()
    dilate(block)
    assert operators(block, x) == MLP


@needs_extension
def test_a_convolution_without_bias():
    block, x = make_block(), torch.randn(1, 7, 5, 16)
    block.dwconv.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
    assert_same(run(block, x), run(block, x, plain))
    assert operators(block, x) >= CONVOLUTION


def test_a_frozen_part_of_a_block():
    block, x = make_block(), torch.randn(1, 7, 5, 16)
    frozen = copy.deepcopy(block)
    for part in (frozen.dwconv, frozen.mlp.fc1):
        part.requires_grad_(False)
    for model in (block, frozen):
        model(x).square().sum().backward()
    for name, parameter in frozen.named_parameters():
        expected = block.get_parameter(name).grad if parameter.requires_grad else None
        if expected is None:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, expected)


def test_compiles_without_graph_breaks():
    torch.compiler.reset()
    block, x = make_block(), torch.randn(1, 7, 5, 16)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    assert_same(run(block, x, lambda _, x: compiled(x)), run(block, x))


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing(reentrant):
    block, x = make_block(), torch.randn(1, 7, 5, 16)

    def checkpointed(block, x):
        return checkpoint(block, x, use_reentrant=reentrant)

    x = x.requires_grad_()
    grads = []
    for function in (checkpointed, plain):
        block.zero_grad()
        function(block, x).square().sum().backward()
        grads.append([p.grad.clone() for p in block.parameters()])
    assert_same(*grads)
