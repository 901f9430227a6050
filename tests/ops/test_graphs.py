"""The operators in graphs: what PyTorch itself checks of them, compiled and exported programs."""

import cases
import pytest
import torch
from cases import Case
from op_backends import devices
from torch._dynamo.testing import CompileCounterWithBackend

from iwin_d2.ops import (
    extension,
    interleaved_window_attention,
    interleaved_window_merge,
    interleaved_window_partition,
    use_backend,
)

needs_extension = pytest.mark.skipif(not extension.loaded(), reason=extension.reason() or "-")
COMPILED = pytest.param("compiled", marks=needs_extension)


def everything(qkv, pad):
    """All three public functions in one graph."""
    out = interleaved_window_attention(qkv, 2, (3, 4), pad)
    windows = interleaved_window_partition(out, (3, 4))
    return interleaved_window_merge(windows.sin(), (3, 4), tuple(out.shape[1:3]))


def attend_clip(qkv, pad):
    """Attention over frames."""
    return interleaved_window_attention(qkv, 2, 4, pad, scale=0.5)


def inputs(*size):
    torch.manual_seed(0)
    qkv = torch.randn(2, *size, 48, requires_grad=True)
    return qkv, torch.randn(48, requires_grad=True)


def assert_same(compiled, function, leaves):
    """Compare values and gradients."""
    out, expected = compiled(*leaves), function(*leaves)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(expected)
    for x, y in zip(
        torch.autograd.grad(out, leaves, grad), torch.autograd.grad(expected, leaves, grad)
    ):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [COMPILED, "reference"])
@pytest.mark.parametrize(
    ("function", "size"), [(everything, (9, 10)), (attend_clip, (3, 5, 9))], ids=["images", "clips"]
)
def test_one_graph(name, function, size):
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    with use_backend(name):
        assert_same(compiled, function, inputs(*size))


@needs_extension
def test_one_graph_for_clips_of_all_sizes():
    torch._dynamo.reset()
    graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(attend_clip, fullgraph=True, backend=graphs, dynamic=True)
    with use_backend("compiled"):
        for size in [(3, 5, 9), (4, 8, 7), (2, 8, 8)]:
            assert_same(compiled, attend_clip, inputs(*size))
    assert graphs.frame_count == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dynamic"),
    [
        pytest.param("compiled", False, marks=needs_extension),
        pytest.param("compiled", True, marks=needs_extension),
        ("reference", False),  # with symbols for sizes, inductor takes minutes over it
    ],
)
def test_inductor(name, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(everything, fullgraph=True, dynamic=dynamic)
    with use_backend(name):
        for size in [(9, 10), (8, 7), (13, 12)]:
            assert_same(compiled, everything, inputs(*size))


class AttendClip(torch.nn.Module):
    """As `attend_clip`, for the exporter."""

    def forward(self, qkv, pad):
        """Without a line of its own."""
        return attend_clip(qkv, pad)


def test_exported_clips_hold_plain_pytorch():
    batch, height, width = (torch.export.Dim(name, min=2) for name in ("batch", "height", "width"))
    program = torch.export.export(
        AttendClip(), inputs(3, 9, 10), dynamic_shapes=({0: batch, 2: height, 3: width}, None)
    )
    assert "iwin_d2" not in str(program.graph)
    for size in [(9, 10), (2, 3), (12, 16), (13, 29)]:
        leaves = inputs(3, *size)
        torch.testing.assert_close(
            program.module()(*leaves), attend_clip(*leaves), rtol=1e-5, atol=1e-5
        )


def operator_calls():
    """Arguments of each operator, small and of every kind."""
    sliced = cases.in_layout(cases.FEW[0], "sliced", "sliced")
    for case in [*cases.FEW, Case((2, 2), (4, 6)), sliced]:
        qkv, pad, grad = case.inputs(torch.float32)
        arguments = (qkv, case.heads, case.window, pad, 0.5)
        yield "attention", arguments
        yield "attention_backward", (grad, *arguments)
    for dtype in (torch.float32, torch.int64):
        yield "partition", (torch.arange(2 * 5 * 7 * 3).view(2, 5, 7, 3).to(dtype), (3, 4))
        windows = torch.arange(2 * 6 * 12 * 3).view(12, 12, 3).to(dtype)
        yield "merge", (windows[::2, :, 1:], (3, 4), (5, 3))


@needs_extension
@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize(
    ("name", "arguments"),
    [pytest.param(*call, id=f"{call[0]}-{n}") for n, call in enumerate(operator_calls())],
)
def test_opcheck(name, arguments, device):
    def prepare(x):
        if not isinstance(x, torch.Tensor):
            return x
        # The operator of the gradient has none of its own.
        wanted = x.is_floating_point() and not name.endswith("_backward")
        return x.detach().to(device).requires_grad_(wanted)

    torch.library.opcheck(
        getattr(torch.ops.iwin_d2, name).default, tuple(prepare(x) for x in arguments)
    )
