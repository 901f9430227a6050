"""The depthwise convolution with its sum: the compiled operator, the reference, one slow loop."""

import contextlib
import functools
import itertools

import cases
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from op_backends import COMPILED, REFERENCE, not_emulated
from torch.utils.flop_counter import FlopCounterMode

from iwin_d2.ops import use_backend
from iwin_d2.ops.depthwise_conv import depthwise_conv_add

BACKENDS = [REFERENCE, *COMPILED]
SIZES = [(1, 1), (1, 9), (9, 1), (2, 2), (5, 7), (13, 6), (8, 17)]
CHANNELS = [1, 3, 8, 17, 96, 100, 132]
GRADIENTS = ("x", "weight", "bias", "other")


@contextlib.contextmanager
def only(backend):
    """The public function served by this backend alone, on its device."""
    device = contextlib.nullcontext() if backend.device == "cpu" else torch.device(backend.device)
    name = "compiled" if backend.compiled else "reference"
    with backend.chosen(), use_backend(name), device:
        yield


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend.name)
def backend(request):
    """The reference and each compiled backend."""
    with only(request.param):
        yield request.param


@pytest.fixture(params=BACKENDS[1:], ids=lambda backend: backend.name)
def compiled(request):
    """Each compiled backend."""
    with only(request.param):
        yield request.param


def inputs(shape, dtype=torch.float32, bias=True):
    """Return x, weight, bias (or None), other and a gradient."""
    generator = torch.Generator("cpu").manual_seed(hash(shape) % 2**31)

    def random_tensor(*sizes):
        x = torch.randn(sizes, generator=generator, dtype=torch.float64, device="cpu")
        return x.to(torch.get_default_device(), dtype)

    weight = random_tensor(shape[-1], 1, 3, 3)
    vector = random_tensor(shape[-1]) if bias else None
    return [random_tensor(*shape), weight, vector, random_tensor(*shape), random_tensor(*shape)]


def run(x, weight, bias, other, grad, function=depthwise_conv_add):
    """Return the result and the gradients of all inputs."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in (x, weight, bias, other)]
    out = function(*leaves)
    wanted = [t for t in leaves if t is not None]
    return out.detach(), *torch.autograd.grad(out, wanted, grad)


def nine_products(x, weight, bias, other):
    """The definition: the map moved by each tap's place, times the tap, and all of them summed."""
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    height, width = x.shape[1:3]
    out = other if bias is None else other + bias
    for dy, dx in itertools.product(range(3), repeat=2):
        out = out + padded[:, dy : dy + height, dx : dx + width] * weight[:, 0, dy, dx]
    return out


def truth(tensors):
    """What `run` should return, in float64."""
    return run(*(None if t is None else t.double() for t in tensors), function=nine_products)


def assert_equal_to_definition(tensors, expected=None):
    """Compare result and gradients, and see that nothing was written to."""
    before = [None if t is None else t.clone() for t in tensors]
    results = run(*tensors)
    tolerance = cases.TOLERANCES[tensors[0].dtype][0]
    for result, expected in zip(results, truth(tensors), strict=True):
        assert result.dtype == tensors[0].dtype and result.shape == expected.shape
        # Gradients of weight and bias are sums over the map: rounding errors grow with them.
        size = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
        torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance * size)
    for t, copy in zip(tensors, before):
        assert t is None or torch.equal(t, copy)


def test_the_definition_is_the_slow_loop():
    x, weight, bias, other, _ = inputs((2, 4, 3, 2), torch.float64)
    slow = other.clone()
    for n, row, column, c in itertools.product(range(2), range(4), range(3), range(2)):
        slow[n, row, column, c] += bias[c]
        for dy, dx in itertools.product((-1, 0, 1), repeat=2):
            if 0 <= row + dy < 4 and 0 <= column + dx < 3:
                slow[n, row, column, c] += (
                    weight[c, 0, dy + 1, dx + 1] * x[n, row + dy, column + dx, c]
                )
    torch.testing.assert_close(nine_products(x, weight, bias, other), slow)


@pytest.mark.parametrize("dtype", cases.TOLERANCES, ids=str)
def test_the_reference(dtype):
    with use_backend("reference"):
        for shape, bias in itertools.product(((2, 5, 7, 3), (1, 1, 4, 8)), (True, False)):
            assert_equal_to_definition(inputs(shape, dtype, bias))


@functools.cache
def inputs_and_truth(shape, dtype, bias, device):
    tensors = inputs(shape, dtype, bias)
    return tensors, truth(tensors)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", cases.TOLERANCES, ids=str)
def test_every_size(compiled, channels, dtype):
    for batch, size in [(0, (5, 7)), *itertools.product((1, 2), SIZES)]:
        shape = (batch, *size, channels)
        device = torch.get_default_device()
        assert_equal_to_definition(*inputs_and_truth(shape, dtype, batch != 1, device))


@pytest.mark.parametrize("channels", [19, 24])
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_every_layout(compiled, layout, channels):
    x, weight, bias, other, grad = inputs((2, 5, 6, channels))
    for chosen in ((True, False, False), (False, True, False), (False, False, True), (True,) * 3):
        maps = (cases.lay_out(t, layout) if lay else t for t, lay in zip((x, other, grad), chosen))
        x_, other_, grad_ = maps
        assert_equal_to_definition((x_, weight, bias, other_, grad_))
    weight = weight.repeat(1, 2, 1, 2)[:, 1:, :, ::2].transpose(2, 3)
    assert_equal_to_definition((x, weight, torch.stack((bias, bias), 1)[:, 0], other, grad))
    weight, bias = (cases.lay_out(t, "unaligned") for t in (weight, bias))
    assert_equal_to_definition((x, weight, bias, other, grad))


@pytest.mark.parametrize("channels", [3, 8])
def test_more_images_than_a_sum_has_parts(compiled, channels):
    assert_equal_to_definition(inputs((1101, 2, 3, channels)))


@given(
    shape=st.tuples(st.integers(0, 3), *[st.integers(1, 20)] * 2, st.integers(1, 70)),
    bias=st.booleans(),
    data=st.data(),
    layout=st.sampled_from(cases.LAYOUTS),
)
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def check_random_case(compiled, shape, bias, data, layout):
    dtype = data.draw(st.sampled_from(compiled.dtypes))
    x, weight, bias, other, grad = inputs(shape, dtype, bias)
    x, other, grad = (cases.lay_out(t, layout) for t in (x, other, grad))
    assert_equal_to_definition((x, weight, bias, other, grad))


def test_random_cases(compiled):
    check_random_case(compiled)


def test_results_are_contiguous(compiled):
    x, weight, bias, other, grad = (
        t if t.dim() == 1 else t.transpose(1, 2) for t in inputs((1, 3, 3, 1))
    )
    weight = torch.randn(1, 3, 3, 1).permute(0, 3, 1, 2)
    assert depthwise_conv_add(x, weight, bias, other).is_contiguous()
    for result in torch.ops.iwin_d2.depthwise_conv_backward(grad, x, weight):
        assert result.is_contiguous()


@pytest.mark.parametrize("dtype", cases.TOLERANCES, ids=str)
def test_threads_change_no_bit(compiled, dtype):
    tensors = inputs((3, 67, 30, 33), dtype)
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(run(*tensors))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other))


def test_sums_over_large_maps_keep_their_digits(compiled):
    tensors = inputs((1, 150, 210, 5))
    for tensor in tensors:
        tensor += 1.0  # sums grow with the map, errors with their partial sums
    for result, expected in zip(run(*tensors)[2:4], truth(tensors)[2:4]):
        torch.testing.assert_close(result.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("place", [(0, 0), (0, 4), (2, 2), (3, 0), (3, 4)])
def test_a_nan_reaches_its_neighbours_alone(backend, place):
    x, weight, bias, other, _ = inputs((3, 4, 5, 20))
    x[1, place[0], place[1], 18] = float("nan")
    reached = torch.zeros(3, 4, 5, 20, dtype=torch.bool)
    rows, columns = (slice(max(0, i - 1), i + 2) for i in place)
    reached[1, rows, columns, 18] = True
    assert torch.equal(depthwise_conv_add(x, weight, bias, other).isnan(), reached)


@pytest.mark.parametrize("row", [0, 3])
def test_a_nan_in_the_first_or_last_row_reaches_six_taps_alone(compiled, row):
    x, weight, bias, other, grad = inputs((2, 4, 5, 20))
    x[1, row, 2, 7] = float("nan")
    reached = torch.zeros_like(weight, dtype=torch.bool)
    reached[7, 0, [dy + 1 for dy in (-1, 0, 1) if 0 <= row - dy < 4]] = True
    assert torch.equal(run(x, weight, bias, other, grad)[2].isnan(), reached)


@pytest.mark.parametrize("dtype", [torch.float64], ids=str)
def test_gradcheck(backend, dtype):
    tensors = inputs((1, 2, 2, 9), dtype)[:4]
    tensors[0] = cases.lay_out(tensors[0], "channels first")
    assert torch.autograd.gradcheck(depthwise_conv_add, [t.requires_grad_() for t in tensors])


@pytest.mark.parametrize("wanted", range(4), ids=GRADIENTS)
def test_only_the_gradients_asked_for(backend, wanted):
    *tensors, grad = inputs((2, 3, 4, 5))
    tensors[wanted].requires_grad_()
    depthwise_conv_add(*tensors).backward(grad)
    expected = truth([t.detach() for t in tensors] + [grad])[1 + wanted]
    torch.testing.assert_close(tensors[wanted].grad.double(), expected, rtol=1e-5, atol=1e-5)
    assert all(t.grad is None for i, t in enumerate(tensors) if i != wanted)


def test_second_derivatives_are_refused(compiled):
    x, weight, bias, other, _ = inputs((1, 3, 4, 5))
    out = depthwise_conv_add(x.requires_grad_(), weight, bias, other)
    (grad,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives of depthwise_conv_add"):
        grad.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast(backend, dtype):
    tensors = inputs((2, 5, 6, 17))
    tensors[3] = tensors[3].to(dtype)  # as from a projection under autocast
    with torch.autocast(backend.device, torch.bfloat16):
        out, *gradients = run(*tensors[:4], tensors[4].to(torch.bfloat16))
        assert out.dtype == torch.bfloat16
    expected = truth([t.to(torch.bfloat16) for t in tensors])
    for result, t, x in zip((out, *gradients), (out, *tensors[:4]), expected):
        assert result.dtype == t.dtype
        size = max(1.0, x.abs().max().item())
        torch.testing.assert_close(result.double(), x, rtol=1e-2, atol=2e-2 * size)


@pytest.mark.parametrize("dtype", [torch.float64], ids=str)
def test_autocast_leaves_float64_alone(backend, dtype):
    tensors = inputs((2, 5, 6, 17), dtype)
    with torch.autocast(backend.device, torch.bfloat16):
        torch.testing.assert_close(depthwise_conv_add(*tensors[:4]), truth(tensors)[0])


@not_emulated
def test_float16_runs_on_the_reference():
    tensors = [t.half() for t in inputs((2, 5, 6, 17))]
    out = depthwise_conv_add(*tensors[:4])
    assert out.dtype == torch.float16
    torch.testing.assert_close(out.double(), truth(tensors)[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("bias", [True, False])
def test_opcheck(compiled, bias):
    tensors = inputs((2, 4, 5, 6), bias=bias)
    arguments = [None if t is None else t.requires_grad_() for t in tensors[:4]]
    torch.library.opcheck(torch.ops.iwin_d2.depthwise_conv_add.default, arguments)
    arguments = [t.detach() for t in (tensors[4], tensors[0], tensors[1])]
    torch.library.opcheck(torch.ops.iwin_d2.depthwise_conv_backward.default, arguments)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks(compiled, dynamic):
    targets = set()
    torch.compiler.reset()

    def note(graph, example_inputs):
        targets.update(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    function = torch.compile(depthwise_conv_add, fullgraph=True, backend=note, dynamic=dynamic)
    for shape in ((2, 5, 6, 17), (1, 8, 3, 17)):
        tensors = inputs(shape)
        torch.testing.assert_close(function(*tensors[:4]), depthwise_conv_add(*tensors[:4]))
    assert "iwin_d2.depthwise_conv_add.default" in targets


def test_compiled_gradients(compiled):
    torch.compiler.reset()
    tensors = inputs((2, 5, 6, 17))
    leaves = [t.requires_grad_() for t in tensors[:4]]
    function = torch.compile(depthwise_conv_add, fullgraph=True, backend="aot_eager")
    gradients = torch.autograd.grad(function(*leaves), leaves, tensors[4])
    for result, expected in zip(gradients, run(*tensors)[1:]):
        torch.testing.assert_close(result, expected)


def test_exported_programs_hold_plain_pytorch():
    class Module(torch.nn.Module):
        def forward(self, *tensors):
            return depthwise_conv_add(*tensors)

    tensors = tuple(inputs((2, 5, 6, 17))[:4])
    side = torch.export.Dim("side", min=2, max=64)
    sizes = ({1: side}, None, None, {1: side})
    program = torch.export.export(Module(), tensors, dynamic_shapes=(sizes,))
    assert not any("iwin_d2" in str(node.target) for node in program.graph.nodes)
    other = tuple(inputs((2, 9, 6, 17))[:4])
    torch.testing.assert_close(program.module()(*other), depthwise_conv_add(*other))


def test_flops_are_those_of_a_convolution(backend):
    x, weight, bias, other, grad = inputs((2, 5, 6, 17))
    with FlopCounterMode(display=False) as plain:
        F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1, groups=17)
    with FlopCounterMode(display=False) as forward:
        depthwise_conv_add(x, weight, bias, other)
    assert forward.get_total_flops() == plain.get_total_flops() == 2 * 9 * x.numel()
    if backend.compiled:  # PyTorch counts the weight's gradient as if there were no groups
        with FlopCounterMode(display=False) as both:
            run(x, weight, bias, other, grad)
        assert both.get_total_flops() == 3 * forward.get_total_flops()


BAD = [
    ({"x": torch.zeros(4, 4, 8)}, r"\[N, H, W, C\], got shape \(4, 4, 8\)"),
    ({"x": torch.zeros(1, 0, 4, 8)}, r"without empty sides, got shape \(1, 0, 4, 8\)"),
    ({"x": torch.zeros(1, 4, 4, 0)}, r"without empty sides, got shape \(1, 4, 4, 0\)"),
    ({"weight": torch.zeros(8, 1, 3, 5)}, r"\(8, 1, 3, 3\), 3x3 .* got shape \(8, 1, 3, 5\)"),
    ({"weight": torch.zeros(4, 1, 3, 3)}, r"\(8, 1, 3, 3\), 3x3 .* got shape \(4, 1, 3, 3\)"),
    ({"weight": torch.zeros(8, 9)}, r"\(8, 1, 3, 3\), 3x3 .* got shape \(8, 9\)"),
    ({"bias": torch.zeros(7)}, r"bias of shape \(8,\), .* got shape \(7,\)"),
    ({"bias": torch.zeros(1, 8)}, r"bias of shape \(8,\), .* got shape \(1, 8\)"),
    ({"other": torch.zeros(1, 4, 5, 8)}, r"other of the shape .* got shape \(1, 4, 5, 8\)"),
    ({"other": torch.zeros(4, 4, 8)}, r"other of the shape .* got shape \(4, 4, 8\)"),
    ({"weight": torch.zeros(8, 1, 3, 3).double()}, "x and weight on one device and of one dtype"),
    ({"bias": torch.zeros(8).bfloat16()}, "x and bias on one device and of one dtype"),
    ({"other": torch.zeros(1, 4, 4, 8).half()}, "x and other on one device and of one dtype"),
]


def arguments_with(bad):
    good = {
        "x": torch.zeros(1, 4, 4, 8),
        "weight": torch.zeros(8, 1, 3, 3),
        "bias": torch.zeros(8),
        "other": torch.zeros(1, 4, 4, 8),
    }
    return list({**good, **bad}.values())


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_bad_arguments(backend, bad, message):
    with pytest.raises(ValueError, match=message):
        depthwise_conv_add(*arguments_with(bad))


@pytest.mark.parametrize("device", ["cpu", "meta"])  # the kernel's checks and the fake's
@pytest.mark.parametrize(("bad", "message"), BAD)
def test_bad_arguments_of_the_operator(device, bad, message):
    with only(BACKENDS[1]), pytest.raises(ValueError, match=message):
        torch.ops.iwin_d2.depthwise_conv_add(*(t.to(device) for t in arguments_with(bad)))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_bad_arguments_of_the_derivative(device):
    x, weight, _, grad = (t.to(device) for t in arguments_with({}))
    with only(BACKENDS[1]):
        operator = torch.ops.iwin_d2.depthwise_conv_backward
        with pytest.raises(ValueError, match=r"grad of the shape .* got shape \(1, 4, 3, 8\)"):
            operator(grad[:, :, 1:], x, weight)
        with pytest.raises(ValueError, match="x and grad on one device and of one dtype"):
            operator(grad.double(), x, weight)
        with pytest.raises(ValueError, match=r"\[N, H, W, C\], got shape \(4, 4, 8\)"):
            operator(grad[0], x[0], weight)


def test_two_devices_are_refused():
    x, weight, bias, other = arguments_with({})
    with pytest.raises(ValueError, match=r"x and weight on one device .* cpu .* meta"):
        depthwise_conv_add(x, weight.to("meta"), bias, other)


def test_two_devices_are_refused_by_the_fake():
    x, weight, bias, other = arguments_with({})
    with only(BACKENDS[1]), pytest.raises(ValueError, match="x and bias on one device"):
        torch.ops.iwin_d2.depthwise_conv_add.default(
            x.to("meta"), weight.to("meta"), bias, other.to("meta")
        )


def test_dtypes_without_a_kernel_are_refused_by_it(compiled):
    unserved = next(dtype for dtype in cases.TOLERANCES if dtype not in compiled.dtypes)
    arguments = [t.to(torch.get_default_device(), unserved) for t in arguments_with({})]
    served = r"float32, bfloat16 or float(64 on the CPU|16 on CUDA), got (Half|Double)"
    with pytest.raises(ValueError, match=f"expected x of dtype {served}"):
        torch.ops.iwin_d2.depthwise_conv_add(*arguments)
    x, weight, *_, grad = arguments
    with pytest.raises(ValueError, match=f"expected x of dtype {served}"):
        torch.ops.iwin_d2.depthwise_conv_backward(grad, x, weight)
