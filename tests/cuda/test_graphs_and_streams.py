"""CUDA graphs, streams other than the default one, devices other than the first."""

import pytest
import torch
from small_models import CALLS, DEVICE, Sum, images, parameter_gradients, small_backbone

from iwin_d2.ops import use_backend

ASLEEP = 800_000_000  # cycles: almost half a second


@pytest.fixture(autouse=True)
def nothing_but_kernels(on_a_gpu):
    """The operators never run in plain PyTorch instead."""
    with use_backend("compiled"):
        yield


def warmed_up(run):
    """Run once on a stream of its own, as capturing asks for; return the result."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        result = run()
    torch.cuda.current_stream().wait_stream(stream)
    return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("call", CALLS, ids=str)
def test_forward_and_backward_in_a_graph(call, dtype):
    inputs = call.inputs(dtype, requires_grad=True)
    warmed_up(lambda: call.gradients(inputs))
    graph, grad = torch.cuda.CUDAGraph(), torch.randn_like(call.function(*inputs))
    with torch.cuda.graph(graph):
        out = call.function(*inputs)
        gradients = torch.autograd.grad(out, inputs, grad)
    for seed in (1, 2):
        torch.manual_seed(seed)
        others = [torch.randn_like(x).requires_grad_() for x in inputs]
        other_grad = torch.randn_like(grad)
        with torch.no_grad():
            for x, other in zip((*inputs, grad), (*others, other_grad)):
                x.copy_(other)
        graph.replay()
        expected = call.function(*others)
        assert torch.equal(out, expected)
        for found, x in zip(gradients, torch.autograd.grad(expected, others, other_grad)):
            assert torch.equal(found, x)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_a_backbone_in_a_graph(dtype):
    model, x = Sum(small_backbone()).to(DEVICE).train(), images()

    def run():
        # Weights that autocast has cast before must not be taken for those of the capture.
        with torch.autocast(DEVICE, dtype, enabled=dtype is not None, cache_enabled=False):
            loss = model(x)
        return loss, *parameter_gradients(model, loss)

    warmed_up(run)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    for seed in (1, 2):
        x.copy_(images(seed=seed))
        graph.replay()
        for found, truth in zip(captured, run(), strict=True):
            # The libraries of matrix products and convolutions may choose otherwise in a graph.
            scale = truth.abs().max().item()
            tolerance = 1e-4 if dtype is None else 3e-2
            torch.testing.assert_close(found, truth, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_work_of_a_stream_does_not_wait_for_the_default_one(call):
    inputs = call.inputs()
    expected = call.gradients([x.detach().requires_grad_() for x in inputs])
    side, asleep = torch.cuda.Stream(), torch.cuda.Event()
    # Leaves of their own: autograd waits for the stream in which one was used first.
    inputs = [x.detach().requires_grad_() for x in inputs]
    with torch.cuda.stream(side):  # memory for this stream: to ask for more might wait
        call.gradients(inputs)
    torch.cuda.synchronize()
    torch.cuda._sleep(ASLEEP)  # the default stream
    asleep.record()
    with torch.cuda.stream(side):
        results = call.gradients(inputs)
    side.synchronize()
    still_asleep = not asleep.query()
    with torch.cuda.stream(side):
        results = [x.cpu() for x in results]
    # A kernel on the default stream would not have run yet.
    for result, x in zip(results, expected):
        assert torch.equal(result, x.cpu())
    assert still_asleep, "the operators wait for the default stream"


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_work_of_a_stream_comes_after_what_is_in_it(call):
    inputs, others = call.inputs(), [2 - x for x in call.inputs()]
    expected = call.function(*others)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(ASLEEP // 8)
        for x, other in zip(inputs, others):
            x.copy_(other)
        result = call.function(*inputs)
    side.synchronize()
    assert torch.equal(result, expected)


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_another_device_than_the_current_one(call):
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one CUDA device here")
    expected = call.gradients(call.inputs(requires_grad=True))
    results = call.gradients(call.inputs(device="cuda:1", requires_grad=True))
    assert torch.cuda.current_device() == 0
    for result, x in zip(results, expected, strict=True):
        assert result.device == torch.device("cuda:1")
        assert torch.equal(result.cpu(), x.cpu())
