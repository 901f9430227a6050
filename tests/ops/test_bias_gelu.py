"""GELU of a sum with a bias: the compiled operator and the reference against erfc in float64."""

import contextlib
import itertools
import math

import cases
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from op_backends import COMPILED, REFERENCE, not_emulated

from iwin_d2.ops import use_backend
from iwin_d2.ops.bias_gelu import bias_gelu, linear_gelu

BACKENDS = [REFERENCE, *COMPILED]
CHANNELS = [1, 3, 8, 17, 96, 100, 264]


@contextlib.contextmanager
def only(backend):
    """The public functions served by this backend alone, on its device."""
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


def inputs(shape, dtype=torch.float32):
    """Return x, bias and a gradient."""
    generator = torch.Generator("cpu").manual_seed(hash(shape) % 2**31)

    def random_tensor(sizes):
        x = 2 * torch.randn(sizes, generator=generator, dtype=torch.float64, device="cpu")
        return x.to(torch.get_default_device(), dtype)

    return [random_tensor(s) for s in (shape, shape[-1:], shape)]


def run(x, bias, grad, function=bias_gelu):
    """Return the result and the gradients of x and bias."""
    leaves = [t.detach().requires_grad_() for t in (x, bias)]
    out = function(*leaves)
    return out.detach(), *torch.autograd.grad(out, leaves, grad)


def definition(x):
    """Return x F(x) in float64, small values to as many digits as large ones."""
    return 0.5 * x * torch.special.erfc(-x / math.sqrt(2))


def slope(x):
    """Return F(x) + x f(x) in float64."""
    density = torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi)
    return 0.5 * torch.special.erfc(-x / math.sqrt(2)) + x * density


def truth(x, bias, grad):
    """Return what `run` should, in float64."""
    total = x.double() + bias.double()
    grad_x = grad.double() * slope(total)
    return definition(total), grad_x, grad_x.flatten(0, -2).sum(0) if x.dim() > 1 else grad_x


def assert_equal_to_definition(tensors):
    """Compare result and gradients, and see that nothing was written to."""
    before = [t.clone() for t in tensors]
    results = run(*tensors)
    tolerance = cases.TOLERANCES[tensors[0].dtype][0]
    for result, x in zip(results, truth(*tensors), strict=True):
        assert result.dtype == tensors[0].dtype and result.shape == x.shape
        # The gradient of the bias is a sum over all rows: rounding errors grow with it.
        size = max(1.0, x.abs().max().item()) if x.numel() else 1.0
        torch.testing.assert_close(result.double(), x, rtol=tolerance, atol=tolerance * size)
    assert all(torch.equal(t, copy) for t, copy in zip(tensors, before))


def slopes(x):
    """The operator's derivative at each of the values in x."""
    zero = torch.zeros_like(x[:1])
    return torch.ops.iwin_d2.bias_gelu_backward(torch.ones_like(x)[:, None], x[:, None], zero)[0]


def test_every_part_of_the_range_of_float32(compiled):
    bits = torch.arange(-(2**31), 2**31, 8209)  # a prime: all exponents, all kinds of fractions
    x = torch.cat((bits.to(torch.int32).view(torch.float32), torch.linspace(-14, 14, 300_001)))
    x = x[x.isfinite()]
    out = bias_gelu(x, torch.zeros(len(x)))
    assert out.isfinite().all()
    exact = definition(x.double())
    error = (out.double() - exact).abs() / x.double().abs().clamp(min=1)
    assert error.max() < 2.5e-7
    error = (slopes(x)[:, 0].double() - slope(x.double())).abs()
    assert error.max() < 5e-7
    small = (x < 0) & (x > -6)  # where x (1 + erf) loses its digits
    assert ((out.double() / exact - 1).abs()[small]).max() < 5e-3
    tiny = x.abs() < 1e-3
    assert ((out.double() - exact).abs() <= 5e-7 * exact.abs())[tiny & (x.abs() > 1e-30)].all()


@pytest.mark.parametrize("dtype", cases.TOLERANCES, ids=str)
def test_the_ends_of_the_range(compiled, dtype):
    inf, nan = math.inf, math.nan
    large, tiny = (torch.finfo(dtype).max, 0.0) if dtype == torch.float16 else (3e38, 1e-30)
    x = torch.tensor([inf, -inf, nan, 0.0, tiny, large, -large, -1e3], dtype=dtype)
    # What x (1 + erf) / 2 and its derivative give, though PyTorch's own kernels differ: with oneDNN
    # gelu(inf) is a NaN.
    expected = torch.tensor([inf, nan, nan, 0.0, tiny / 2, large, 0.0, 0.0], dtype=dtype)
    expected_grad = torch.tensor([nan, nan, nan, 0.5, 0.5, 1.0, 0.0, 0.0], dtype=dtype)
    for repeats in (1, 9):  # single ones and whole vectors
        zeros, ones = torch.zeros(8 * repeats, dtype=dtype), torch.ones(8 * repeats, dtype=dtype)
        out, grad_x, _ = run(x.repeat(repeats), zeros, ones)
        for result, value in ((out, expected), (grad_x, expected_grad)):
            torch.testing.assert_close(
                result, value.repeat(repeats), equal_nan=True, rtol=1e-6, atol=0
            )


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", cases.TOLERANCES, ids=str)
def test_every_size(backend, channels, dtype):
    for sizes in ((), (1,), (7,), (2, 0), (2, 3, 5), (300,)):
        assert_equal_to_definition(inputs((*sizes, channels), dtype))


@pytest.mark.parametrize("channels", [19, 24])
@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("dtype", cases.TOLERANCES, ids=str)
def test_every_layout(compiled, layout, dtype, channels):
    x, bias, grad = inputs((2, 5, 6, channels), dtype)
    for chosen in ((True, False), (False, True), (True, True)):
        laid_out = (cases.lay_out(t, layout) if lay else t for t, lay in zip((x, grad), chosen))
        x_, grad_ = laid_out
        assert_equal_to_definition((x_, torch.stack((bias, bias), 1)[:, 0], grad_))
    assert_equal_to_definition((x, cases.lay_out(bias, "unaligned"), grad))


@given(
    shape=st.lists(st.integers(0, 9), max_size=3),
    channels=st.integers(1, 70),
    data=st.data(),
)
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def check_random_case(compiled, shape, channels, data):
    dtype = data.draw(st.sampled_from(compiled.dtypes))
    assert_equal_to_definition(inputs((*shape, channels), dtype))


def test_random_cases(compiled):
    check_random_case(compiled)


def test_no_channels(backend):
    out, grad_x, grad_bias = run(torch.zeros(3, 0), torch.zeros(0), torch.zeros(3, 0))
    assert out.shape == grad_x.shape == (3, 0) and grad_bias.shape == (0,)


def test_results_are_contiguous(compiled):
    x, bias, grad = inputs((4, 5, 6))
    x, grad = x.transpose(0, 1), grad.transpose(0, 1)
    assert bias_gelu(x, bias).is_contiguous()
    assert all(t.is_contiguous() for t in torch.ops.iwin_d2.bias_gelu_backward(grad, x, bias))


@pytest.mark.parametrize("dtype", cases.TOLERANCES, ids=str)
def test_threads_change_no_bit(compiled, dtype):
    tensors = inputs((1009, 67), dtype)
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


def test_sums_over_many_rows_keep_their_digits(compiled):
    x, bias, grad = inputs((30_000, 5))
    tensors = (x, bias, grad.abs())  # sums grow with the rows, errors with their partial sums
    assert_close = torch.testing.assert_close
    assert_close(run(*tensors)[2].double(), truth(*tensors)[2], rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64], ids=str)
def test_gradcheck(backend, dtype):
    x, bias, _ = (t.requires_grad_() for t in inputs((3, 11), dtype))
    assert torch.autograd.gradcheck(bias_gelu, (x, bias))
    strided = cases.lay_out(x.detach()[None], "channels first")[0].requires_grad_()
    assert torch.autograd.gradcheck(bias_gelu, (strided, bias))


@pytest.mark.parametrize("wanted", range(2), ids=("x", "bias"))
def test_only_the_gradients_asked_for(backend, wanted):
    *tensors, grad = inputs((3, 4, 5))
    expected = truth(*tensors, grad)[1 + wanted]
    tensors[wanted].requires_grad_()
    bias_gelu(*tensors).backward(grad)
    torch.testing.assert_close(tensors[wanted].grad.double(), expected, rtol=1e-5, atol=1e-5)
    assert tensors[1 - wanted].grad is None


def test_second_derivatives_are_refused(compiled):
    x, bias, _ = inputs((4, 5))
    (grad,) = torch.autograd.grad(
        bias_gelu(x.requires_grad_(), bias).square().sum(), x, create_graph=True
    )
    with pytest.raises(RuntimeError, match="second derivatives of bias_gelu"):
        grad.sum().backward()


def test_autocast(backend):
    x, bias, grad = inputs((6, 17))
    with torch.autocast(backend.device, torch.bfloat16):
        results = run(x.to(torch.bfloat16), bias, grad.to(torch.bfloat16))
    assert [t.dtype for t in results] == [torch.bfloat16, torch.bfloat16, torch.float32]
    for result, expected in zip(results, truth(*(t.bfloat16() for t in (x, bias, grad)))):
        size = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(result.double(), expected, rtol=1e-2, atol=1e-2 * size)


@pytest.mark.parametrize("dtype", [torch.float64], ids=str)
def test_autocast_leaves_float64_alone(backend, dtype):
    tensors = inputs((6, 17), dtype)
    with torch.autocast(backend.device, torch.bfloat16):
        torch.testing.assert_close(bias_gelu(*tensors[:2]), truth(*tensors)[0])


@not_emulated
def test_float16_runs_on_the_reference():
    tensors = [t.half() for t in inputs((6, 17))]
    out = bias_gelu(*tensors[:2])
    assert out.dtype == torch.float16
    torch.testing.assert_close(out.double(), truth(*tensors)[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", cases.TOLERANCES, ids=str)
def test_linear_gelu(backend, dtype):
    x, bias, grad = inputs((2, 3, 17), dtype)
    weight = torch.randn(30, 17).to(dtype)
    bias, grad = bias.repeat(2)[:30], grad.repeat(1, 1, 2)[..., :30]
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    out = linear_gelu(*leaves)
    gradients = torch.autograd.grad(out, leaves, grad)
    exact = [t.detach().double().requires_grad_() for t in leaves]
    plain = F.gelu(F.linear(*exact))
    tolerance = cases.TOLERANCES[dtype][1]
    for result, expected in zip(
        (out, *gradients), (plain, *torch.autograd.grad(plain, exact, grad.double()))
    ):
        size = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(
            result.double(), expected, rtol=tolerance, atol=2 * tolerance * size
        )


def test_linear_gelu_keeps_one_hidden_map(compiled):
    x, bias, _ = inputs((50, 16))
    weight = torch.randn(16, 16, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        linear_gelu(x, weight, bias)
    assert len({t.data_ptr() for t in kept if t.shape == (50, 16)} - {x.data_ptr()}) == 1


def test_opcheck(compiled):
    x, bias, grad = inputs((2, 4, 6))
    arguments = (x.requires_grad_(), bias.requires_grad_())
    torch.library.opcheck(torch.ops.iwin_d2.bias_gelu.default, arguments)
    arguments = (grad, x.detach(), bias.detach())
    torch.library.opcheck(torch.ops.iwin_d2.bias_gelu_backward.default, arguments)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks(compiled, dynamic):
    targets = set()
    torch.compiler.reset()

    def note(graph, example_inputs):
        targets.update(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    function = torch.compile(linear_gelu, fullgraph=True, backend=note, dynamic=dynamic)
    weight = torch.randn(17, 17)
    for shape in ((2, 5, 17), (3, 8, 17)):
        x, bias, _ = inputs(shape)
        torch.testing.assert_close(function(x, weight, bias), linear_gelu(x, weight, bias))
    assert "iwin_d2.bias_gelu.default" in targets


def test_compiled_gradients(compiled):
    torch.compiler.reset()
    x, bias, grad = inputs((6, 17))
    leaves = (x.requires_grad_(), bias.requires_grad_())
    function = torch.compile(bias_gelu, fullgraph=True, backend="aot_eager")
    gradients = torch.autograd.grad(function(*leaves), leaves, grad)
    for result, expected in zip(gradients, run(x, bias, grad)[1:]):
        torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("function", [bias_gelu, lambda x, bias: linear_gelu(x, x[:17], bias)])
def test_exported_programs_hold_plain_pytorch(function):
    class Module(torch.nn.Module):
        def forward(self, x, bias):
            return function(x, bias)

    x, bias, _ = inputs((20, 17))
    program = torch.export.export(Module(), (x, bias))
    assert not any("iwin_d2" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(x, bias), function(x, bias))


BAD = [
    (torch.zeros(3, 8), torch.zeros(7), r"got shapes \(3, 8\) and \(7,\)"),
    (torch.zeros(3, 8), torch.zeros(1, 8), r"got shapes \(3, 8\) and \(1, 8\)"),
    (torch.tensor(1.0), torch.zeros(1), r"got shapes \(\) and \(1,\)"),
    (torch.zeros(3, 8), torch.zeros(8).double(), "x and bias on one device and of one dtype"),
]


@pytest.mark.parametrize(("x", "bias", "message"), BAD)
def test_bad_arguments(backend, x, bias, message):
    with pytest.raises(ValueError, match=message):
        bias_gelu(x, bias)


@pytest.mark.parametrize("device", ["cpu", "meta"])  # the kernel's checks and the fake's
@pytest.mark.parametrize(("x", "bias", "message"), BAD)
def test_bad_arguments_of_the_operator(device, x, bias, message):
    x, bias = x.to(device), bias.to(device)
    with only(BACKENDS[1]):
        for grad, operator in itertools.product(
            (x,), (torch.ops.iwin_d2.bias_gelu, torch.ops.iwin_d2.bias_gelu_backward)
        ):
            arguments = (x, bias) if operator is torch.ops.iwin_d2.bias_gelu else (grad, x, bias)
            with pytest.raises(ValueError, match=message):
                operator(*arguments)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_bad_gradients(device):
    x, bias = torch.zeros(3, 8, device=device), torch.zeros(8, device=device)
    with only(BACKENDS[1]):
        operator = torch.ops.iwin_d2.bias_gelu_backward
        with pytest.raises(ValueError, match=r"grad of the shape .* got shape \(2, 8\)"):
            operator(x[1:], x, bias)
        with pytest.raises(ValueError, match="x and grad on one device and of one dtype"):
            operator(x.double(), x, bias)


def test_two_devices_are_refused():
    with pytest.raises(ValueError, match=r"x and bias on one device .* cpu .* meta"):
        bias_gelu(torch.zeros(3, 8), torch.zeros(8, device="meta"))


def test_dtypes_without_a_kernel_are_refused_by_it(compiled):
    unserved = next(dtype for dtype in cases.TOLERANCES if dtype not in compiled.dtypes)
    x, bias = torch.zeros(3, 8, dtype=unserved), torch.zeros(8, dtype=unserved)
    served = r"float32, bfloat16 or float(64 on the CPU|16 on CUDA), got (Half|Double)"
    with pytest.raises(ValueError, match=f"expected x of dtype {served}"):
        torch.ops.iwin_d2.bias_gelu(x, bias)
    for grad in (x, x[:0]):
        with pytest.raises(ValueError, match=f"expected x of dtype {served}"):
            torch.ops.iwin_d2.bias_gelu_backward(grad, grad, bias)
