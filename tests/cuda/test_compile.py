"""torch.compile, with the compiler that PyTorch uses on a GPU: it takes its time."""

import pytest
import torch
from small_models import (
    CALLS,
    DEVICE,
    Sum,
    assert_close,
    images,
    parameter_gradients,
    small_backbone,
)
from torch._dynamo.testing import CompileCounterWithBackend

from iwin_d2.ops import use_backend


@pytest.fixture(autouse=True)
def compile_anew(on_a_gpu):
    """Nothing of the test before, and no operator in plain PyTorch."""
    torch._dynamo.reset()
    with use_backend("compiled"):
        yield


def operators_of(counter):
    graph = counter.graphs[0].graph
    return {str(node.target) for node in graph.nodes if node.op == "call_function"}


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_a_backbone_is_one_graph(dtype):
    model, x = Sum(small_backbone()).to(DEVICE).train(), images()
    counter = CompileCounterWithBackend("inductor")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    with torch.autocast(DEVICE, dtype, enabled=dtype is not None):
        expected, found = model(x), compiled(x)
    tolerance = 1e-4 if dtype is None else 3e-2
    assert_close(found, expected, tolerance)
    for x, y in zip(parameter_gradients(model, found), parameter_gradients(model, expected)):
        assert_close(x, y, 10 * tolerance)
    assert counter.frame_count == 1
    names = ("attention", "depthwise_conv_add", "bias_gelu")
    assert {f"iwin_d2.{name}.default" for name in names} <= operators_of(counter)


def test_a_backbone_without_gradients():
    model, x = small_backbone().to(DEVICE).eval(), images()
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        for name, value in compiled(x).items():
            assert_close(value, model(x)[name], 1e-4)


@pytest.mark.parametrize("call", CALLS[:2], ids=str)
def test_operators_in_a_graph_of_the_compiler(call):
    """With the CUDA graphs that torch.compile makes itself."""
    compiled = torch.compile(call.function, fullgraph=True, mode="reduce-overhead")
    for _ in range(4):  # the first run compiles, later ones warm up, record and replay
        torch.compiler.cudagraph_mark_step_begin()
        inputs = [torch.randn_like(x) for x in call.inputs()]
        assert_close(compiled(*inputs).clone(), call.function(*inputs), 1e-5)


def test_one_graph_for_all_sizes():
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(CALLS[0].function, fullgraph=True, backend=counter, dynamic=True)
    for size in ((9, 10), (12, 16), (17, 5)):
        qkv = torch.randn(2, *size, 288, device=DEVICE, requires_grad=True)
        pad = torch.randn(288, device=DEVICE, requires_grad=True)
        out, expected = compiled(qkv, pad), CALLS[0].function(qkv, pad)
        assert torch.equal(out, expected)
        for x, y in zip(
            torch.autograd.grad(out.sin().sum(), (qkv, pad)),
            torch.autograd.grad(expected.sin().sum(), (qkv, pad)),
        ):
            assert_close(x, y, 1e-5)
    assert counter.frame_count == 1
