"""The MLP as one operator against its two linear layers and GELU, forward and backward."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from iwin_d2.ops import extension, use_backend
from iwin_d2.ops.mlp import mlp

needs_extension = pytest.mark.skipif(not extension.loaded(), reason=extension.reason() or "none")
SIZES = [
    (1, 16, 32),
    (333, 96, 384),
    (7000, 96, 384),
    (500, 192, 784),
    (40, 768, 3072),
    (0, 32, 64),
]


def inputs(tokens, channels, hidden, dtype=torch.float64):
    """Return the gradient, x and the parameters; the weights keep values near one."""
    torch.manual_seed(0)
    shapes = [
        (tokens, channels),
        (tokens, channels),
        (hidden, channels),
        (hidden,),
        (channels, hidden),
        (channels,),
    ]
    scales = [1, 1, channels**-0.5, 1, hidden**-0.5, 1]
    tensors = [s * torch.randn(shape, dtype=torch.float64) for s, shape in zip(scales, shapes)]
    return [tensor.to(dtype) for tensor in tensors]


def definition(x, fc1_weight, fc1_bias, fc2_weight, fc2_bias):
    return F.linear(F.gelu(F.linear(x, fc1_weight, fc1_bias)), fc2_weight, fc2_bias)


def run(grad, *tensors, function=mlp):
    """Return the result and the gradients of x and all parameters."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    out = function(*leaves)
    return out.detach(), *torch.autograd.grad(out, leaves, grad)


def assert_close(results, expected, tolerance=1e-5):
    for result, exact in zip(results, expected, strict=True):
        size = max(1.0, exact.abs().max().item() if exact.numel() else 1.0)
        torch.testing.assert_close(result.double(), exact, rtol=0, atol=tolerance * size)


def calls(function):
    """How often the compiled operator runs while `function` does."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True
    ) as profile:
        function()
    return sum(e.count for e in profile.key_averages() if e.key == "iwin_d2::mlp")


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_each_instruction_set(compiled_backend, size):
    tensors = inputs(*size)
    results = run(*(tensor.float() for tensor in tensors))
    assert_close(results, run(*tensors, function=definition))


def test_in_plain_pytorch():
    tensors = inputs(20, 32, 64, torch.float32)
    with use_backend("reference"):
        for result, expected in zip(run(*tensors), run(*tensors, function=definition)):
            torch.testing.assert_close(result, expected)


@needs_extension
@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(1, 400), st.integers(1, 8), st.integers(1, 30))
def test_random_sizes(tokens, channels, hidden):
    tensors = inputs(tokens, 16 * channels, 16 * hidden)
    results = run(*(tensor.float() for tensor in tensors))
    assert_close(results, run(*tensors, function=definition))


@needs_extension
def test_any_layout_and_leading_dimensions():
    grad, x, *parameters = inputs(2 * 3 * 5, 32, 64, torch.float32)
    expected = run(grad, x, *parameters)
    maps = [t.view(2, 3, 5, 32) for t in (grad, x)]
    strided = [t.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1) for t in maps]
    sliced = [torch.stack((p, p), dim=-1)[..., 0] for p in parameters]
    results = run(strided[0], strided[1], *sliced)
    for result, x in zip(results, expected, strict=True):
        assert torch.equal(result.reshape(x.shape), x)


@needs_extension
def test_threads_change_no_bit():
    tensors = inputs(1000, 96, 400, torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(run(*tensors))
    finally:
        torch.set_num_threads(threads)
    for others in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], others))


@needs_extension
def test_nothing_as_wide_as_the_hidden_map_is_kept():
    _, x, *parameters = inputs(50, 32, 128, torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        mlp(x.requires_grad_(), *parameters)
    assert {t.shape for t in kept} <= {x.shape, *(p.shape for p in parameters)}


@needs_extension
@pytest.mark.parametrize(
    ("dtype", "hidden"), [(torch.float64, 64), (torch.bfloat16, 64), (torch.float32, 72)]
)
def test_what_it_does_not_serve_runs_in_two_layers(dtype, hidden):
    tensors = inputs(20, 32, hidden, dtype)
    assert calls(lambda: run(*tensors)) == 0
    tolerance = 5e-2 if dtype == torch.bfloat16 else 1e-5
    exact = run(*inputs(20, 32, hidden), function=definition)
    assert_close(run(*tensors), exact, tolerance)


@needs_extension
def test_it_serves_float32_and_not_under_autocast():
    tensors = inputs(20, 32, 64, torch.float32)
    assert calls(lambda: run(*tensors)) == 1
    with torch.autocast("cpu", torch.bfloat16):
        assert calls(lambda: mlp(*tensors[1:])) == 0


@needs_extension
def test_opcheck():
    grad, *tensors = inputs(5, 16, 32, torch.float32)
    leaves = tuple(tensor.requires_grad_() for tensor in tensors)
    torch.library.opcheck(torch.ops.iwin_d2.mlp.default, leaves)
    backward = torch.ops.iwin_d2.mlp_backward.default
    torch.library.opcheck(backward, (grad, *(t.detach() for t in tensors[:4])))


@needs_extension
def test_second_derivatives_are_refused():
    _, x, *parameters = inputs(5, 16, 32, torch.float32)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(mlp(x, *parameters).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives of the MLP"):
        grad.sum().backward()


@needs_extension
def test_flops_are_those_of_two_layers():
    _, x, *parameters = inputs(50, 32, 128, torch.float32)
    counts = []
    for function in (mlp, definition):
        with FlopCounterMode(display=False) as counter:
            function(x, *parameters)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@needs_extension
def test_compiled_to_one_graph():
    _, x, *parameters = inputs(50, 32, 128, torch.float32)
    compiled = torch.compile(mlp, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, *parameters), mlp(x, *parameters))


BAD = {
    "x": ((20, 48), r"x of 32 channels.*\(20, 48\)"),
    "fc1_weight": ((64, 32, 1), r"\[D, C\].*\(64, 32, 1\)"),
    "fc1_bias": ((63,), r"fc1_bias of shape \(64,\).*\(63,\)"),
    "fc2_weight": ((32, 63), r"fc2_weight of shape \(32, 64\).*\(32, 63\)"),
    "fc2_bias": ((31,), r"fc2_bias of shape \(32,\).*\(31,\)"),
}


@needs_extension
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name, device):
    names = ("x", "fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias")
    tensors = dict(zip(names, (t.to(device) for t in inputs(20, 32, 64, torch.float32)[1:])))
    shape, message = BAD[name]
    tensors[name] = torch.zeros(shape, device=device)
    with pytest.raises(ValueError, match=message):
        torch.ops.iwin_d2.mlp.default(*tensors.values())


@needs_extension
def test_other_dtypes_are_named():
    with pytest.raises(ValueError, match="float32 on the CPU"):
        torch.ops.iwin_d2.mlp.default(*inputs(20, 32, 64)[1:])
    with pytest.raises(ValueError, match="multiples of 16, got 32 and 72"):
        torch.ops.iwin_d2.mlp.default(*inputs(20, 32, 72, torch.float32)[1:])
