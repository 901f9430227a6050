"""A linear layer: the compiled operators against float64, and when they are used."""

import itertools

import cases
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from op_backends import COMPILED
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from iwin_d2.modeling.blocks import IwinBlock
from iwin_d2.ops import extension, use_backend
from iwin_d2.ops import linear as module
from iwin_d2.ops.linear import can_run, linear

needs_extension = pytest.mark.skipif(not extension.loaded(), reason=extension.reason() or "-")
CHANNELS = [(16, 16), (16, 48), (96, 288), (112, 80), (400, 64), (64, 528), (1040, 16)]
TOKENS = [(1,), (2,), (7,), (3, 5, 13), (193,), (2, 200)]


@pytest.fixture(params=COMPILED, ids=lambda backend: backend.name)
def compiled(request, monkeypatch):
    """Each instruction set, though it be slower than PyTorch's own."""
    monkeypatch.setattr(module, "_is_faster", lambda: True)
    with request.param.chosen():
        yield


class Calls(TorchDispatchMode):
    """The names of this package's operators that are called meanwhile."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "iwin_d2":
            self.names.append(func._opname)
        return func(*args, **(kwargs or {}))


def inputs(shape, outputs, bias=True):
    """Return x, weight, bias (or None) and a gradient."""
    generator = torch.Generator().manual_seed(hash((shape, outputs)) % 2**31)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    weight = normal(outputs, shape[-1]) * shape[-1] ** -0.5
    return normal(*shape), weight, normal(outputs) if bias else None, normal(*shape[:-1], outputs)


def run(x, weight, bias, grad, function=linear):
    """Return the result and the gradients of all inputs."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in (x, weight, bias)]
    out = function(*leaves)
    return out.detach(), *torch.autograd.grad(out, [t for t in leaves if t is not None], grad)


def in_float64(tensors):
    return [None if t is None else t.double() for t in tensors]


def assert_close(result, expected):
    """Within 1e-5 of the largest: a product may cancel, and its rounding errors do not."""
    assert result.shape == expected.shape and result.is_contiguous()
    size = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-5 * size)


def assert_equal_to_definition(tensors):
    """Compare result and gradients, and see that nothing was written to."""
    before = [None if t is None else t.clone() for t in tensors]
    with Calls() as calls:
        results = run(*tensors)
    assert calls.names == ["linear", "linear_backward_input", "linear_backward_weight"]
    for result, expected in zip(results, run(*in_float64(tensors), F.linear), strict=True):
        assert result.dtype == torch.float32
        assert_close(result, expected)
    assert all(t is None or torch.equal(t, copy) for t, copy in zip(tensors, before))


@pytest.mark.parametrize("channels", CHANNELS, ids=str)
def test_every_size(compiled, channels):
    for number, tokens in enumerate(TOKENS):
        assert_equal_to_definition(inputs((*tokens, channels[0]), channels[1], number % 2 == 0))


@pytest.mark.parametrize("channels", [(768, 3072), (3072, 768)], ids=str)
def test_the_largest_layers_of_the_published_models(compiled, channels):
    assert_equal_to_definition(inputs((37, channels[0]), channels[1]))


@given(
    tokens=st.lists(st.integers(1, 24), min_size=1, max_size=3),
    channels=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    bias=st.booleans(),
)
@settings(max_examples=12, deadline=None, derandomize=True, database=None)
def check_random_case(tokens, channels, bias):
    assert_equal_to_definition(inputs((*tokens, 16 * channels[0]), 16 * channels[1], bias))


def test_random_cases(compiled):
    check_random_case()


@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_every_layout(compiled, layout):
    x, weight, bias, grad = inputs((2, 9, 8, 32), 48)
    laid_out = [cases.lay_out(t, layout) for t in (x, grad)]
    for x_, grad_ in itertools.product((x, laid_out[0]), (grad, laid_out[1])):
        assert_equal_to_definition((x_, weight, bias, grad_))
    for weight_ in (weight.t().contiguous().t(), cases.lay_out(weight[None], layout)[0]):
        assert_equal_to_definition((x, weight_, torch.stack((bias, bias), 1)[:, 0], grad))


@pytest.mark.parametrize("bias", [True, False])
def test_no_token(compiled, bias):
    assert_equal_to_definition(inputs((0, 5, 32), 48, bias))


def test_a_single_token_without_other_dimensions(compiled):
    assert_equal_to_definition(inputs((32,), 48))


@pytest.mark.parametrize(("tokens", "channels"), [(1009, (48, 112)), (130, (16, 3072))])
def test_threads_change_no_bit(compiled, tokens, channels):
    tensors = inputs((tokens, channels[0]), channels[1])
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


def test_sums_over_many_tokens_keep_their_digits(compiled):
    x, weight, bias, grad = inputs((30_000, 16), 16)
    tensors = (x.abs(), weight, bias, grad.abs())  # sums grow, errors with their partial sums
    expected = run(*in_float64(tensors), F.linear)
    for result, truth in zip(run(*tensors)[2:], expected[2:], strict=True):
        torch.testing.assert_close(result.double(), truth, rtol=2e-6, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_reach_their_own_row_alone(compiled, bad):
    x, weight, bias, _ = inputs((193, 32), 48)
    plain = linear(x, weight, bias)
    x[100, 7] = bad
    out = linear(x, weight, bias)
    assert not out[100].isfinite().any()
    plain[100] = out[100] = 0
    assert torch.equal(out, plain)


WANTED = [list(w) for w in itertools.product((True, False), repeat=3) if any(w)]


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_only_the_gradients_asked_for(compiled, wanted):
    *tensors, grad = inputs((3, 7, 32), 48)
    leaves = [t.clone().requires_grad_(w) for t, w in zip(tensors, wanted)]
    with Calls() as calls:
        linear(*leaves).backward(grad)
    expected = run(*in_float64((*tensors, grad)), F.linear)[1:]
    for leaf, w, truth in zip(leaves, wanted, expected):
        if w:
            assert_close(leaf.grad, truth)
        else:
            assert leaf.grad is None
    assert ("linear_backward_input" in calls.names) == wanted[0]
    assert ("linear_backward_weight" in calls.names) == wanted[1]


def test_only_arguments_are_kept(compiled):
    x, weight, bias, _ = inputs((3, 32), 48)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        linear(x, weight.requires_grad_(), bias)
    assert {t.data_ptr() for t in kept} <= {x.data_ptr(), weight.data_ptr()}


@pytest.mark.parametrize("which", [0, 1])
def test_second_derivatives_are_refused(compiled, which):
    tensors = [t.requires_grad_() for t in inputs((5, 16), 32)[:3]]
    (grad,) = torch.autograd.grad(
        linear(*tensors).square().sum(), tensors[which], create_graph=True
    )
    with pytest.raises(RuntimeError, match="second derivatives of the linear layers are"):
        grad.sum().backward()


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing(compiled, reentrant):
    x, weight, bias, grad = inputs((5, 16), 32)
    x.requires_grad_()
    checkpoint(linear, x, weight, bias, use_reentrant=reentrant).backward(grad)
    assert_close(x.grad, run(*in_float64((x.detach(), weight, bias, grad)), F.linear)[1])


@pytest.mark.parametrize("bias", [True, False])
def test_opcheck(compiled, bias):
    x, weight, bias, grad = inputs((2, 3, 16), 32, bias)
    operators = torch.ops.iwin_d2
    arguments = [None if t is None else t.clone().requires_grad_() for t in (x, weight, bias)]
    torch.library.opcheck(operators.linear.default, arguments)
    torch.library.opcheck(operators.linear_backward_input.default, (grad, weight))
    torch.library.opcheck(operators.linear_backward_weight.default, (grad, x))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks(compiled, dynamic):
    targets = set()
    torch.compiler.reset()

    def note(graph, example_inputs):
        targets.update(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    function = torch.compile(linear, fullgraph=True, backend=note, dynamic=dynamic)
    for shape in ((2, 5, 32), (3, 8, 32)):
        tensors = inputs(shape, 48)[:3]
        assert torch.equal(function(*tensors), linear(*tensors))
    assert "iwin_d2.linear.default" in targets


def test_compiled_gradients(compiled):
    torch.compiler.reset()
    tensors = inputs((2, 5, 32), 48)
    function = torch.compile(linear, fullgraph=True, backend="aot_eager")
    for result, expected in zip(run(*tensors, function), run(*tensors), strict=True):
        torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("strict", [True, False])
def test_exported_programs_hold_plain_pytorch(compiled, strict):
    class Module(torch.nn.Module):
        def forward(self, *tensors):
            return linear(*tensors)

    tensors = inputs((2, 5, 32), 48)[:3]
    program = torch.export.export(Module(), tensors, strict=strict)
    assert not any("iwin_d2" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(*tensors), linear(*tensors))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 32), (2, 5, 3, 32)])
def test_flops_are_those_of_pytorchs_own(compiled, shape, bias):
    tensors = inputs(shape, 48, bias)
    counts = []
    for function in (linear, F.linear):
        with FlopCounterMode(display=False) as forward:
            function(*tensors[:3])
        with FlopCounterMode(display=False) as both:
            run(*tensors, function)
        counts.append((forward.get_total_flops(), both.get_total_flops()))
    products = 2 * tensors[0].numel() * 48
    assert counts[0] == counts[1] == (products, 3 * products)


MATRIX = torch.zeros(48, 32)
X, BIAS, GRAD = torch.zeros(3, 32), torch.zeros(48), torch.zeros(3, 48)
BAD = [
    ("linear", (X[:, :16], MATRIX, BIAS), r"x of 32 channels, as weight has, .* \(3, 16\)"),
    ("linear", (torch.tensor(1.0), MATRIX, BIAS), r"x of 32 channels, .* got shape \(\)"),
    ("linear", (X, MATRIX[0], BIAS), r"weight of shape \[N, K\], got shape \(32,\)"),
    ("linear", (X, MATRIX[None], BIAS), r"weight of shape \[N, K\], got shape \(1, 48, 32\)"),
    ("linear", (X, MATRIX, BIAS[:7]), r"bias of shape \(48,\), got shape \(7,\)"),
    ("linear", (X, MATRIX, GRAD[:1]), r"bias of shape \(48,\), got shape \(1, 48\)"),
    ("linear", (X, MATRIX.double(), BIAS), "x and weight on one device and of one dtype, got"),
    ("linear", (X, MATRIX, BIAS.double()), "x and bias on one device and of one dtype, got"),
    ("linear_backward_input", (X, MATRIX), r"grad of 48 channels, as weight .* \(3, 32\)"),
    ("linear_backward_input", (torch.tensor(1.0), MATRIX), r"grad of 48 channels, .* \(\)"),
    ("linear_backward_input", (GRAD, BIAS), r"weight of shape \[N, K\], got shape \(48,\)"),
    ("linear_backward_input", (GRAD, MATRIX.double()), "weight on one device and of one dtype"),
    ("linear_backward_weight", (GRAD[1:], X), r"channels alone, .* \(2, 48\) and \(3, 32\)"),
    ("linear_backward_weight", (GRAD[0], X), r"channels alone, .* \(48,\) and \(3, 32\)"),
    ("linear_backward_weight", (torch.tensor(1.0),) * 2, r"channels alone, .* \(\) and \(\)"),
    ("linear_backward_weight", (GRAD, X.double()), "x on one device and of one dtype"),
]


@pytest.mark.parametrize("device", ["cpu", "meta"])  # the kernel's checks and the fake's
@pytest.mark.parametrize(("name", "arguments", "message"), BAD)
def test_bad_arguments(compiled, name, device, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        getattr(torch.ops.iwin_d2, name)(*(t.to(device) for t in arguments))
    assert "\n" not in str(error.value)


@needs_extension
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("linear", (X, MATRIX, None)),
        ("linear_backward_input", (GRAD, MATRIX)),
        ("linear_backward_weight", (GRAD, X)),
    ],
)
def test_what_has_no_kernel_is_refused_by_it(name, arguments):
    operator = getattr(torch.ops.iwin_d2, name)
    with pytest.raises(ValueError, match="dtype float32 on the CPU, got Double"):
        operator(*(None if t is None else t.double() for t in arguments))
    cut = [None if t is None else t[..., :20] for t in arguments]
    if name == "linear_backward_input":
        cut = [GRAD[:, :40], MATRIX[:40]]
    with pytest.raises(ValueError, match=r"multiples of 16, got .*(20|40)"):
        operator(*cut)


class TestChoice:
    """When the operator is used: never where PyTorch's own would do as well."""

    @staticmethod
    def names(*tensors, backend="auto"):
        with use_backend(backend), Calls() as calls:
            linear(*tensors)
        return calls.names

    @pytest.fixture(autouse=True)
    def extension_is_there(self, monkeypatch):
        if not extension.loaded():
            pytest.skip(extension.reason())
        monkeypatch.setattr(module, "_is_faster", lambda: True)

    def test_where_it_is_faster(self, monkeypatch):
        assert can_run(X, MATRIX) is None
        for backend in ("auto", "compiled"):
            assert self.names(X, MATRIX, BIAS, backend=backend) == ["linear"]
        assert self.names(X, MATRIX, BIAS, backend="reference") == []
        monkeypatch.setattr(module, "_is_faster", lambda: False)
        assert "as fast" in can_run(X, MATRIX)
        for backend in ("auto", "compiled"):  # no error: nothing asked for is missing
            assert self.names(X, MATRIX, BIAS, backend=backend) == []

    @pytest.mark.parametrize(
        ("vendor", "capability", "mkl", "faster"),
        [
            ("AuthenticAMD", "AVX512", True, True),
            ("GenuineIntel", "AVX512", True, False),
            ("", "AVX512", True, False),
            ("AuthenticAMD", "AVX2", True, False),
            ("AuthenticAMD", "AVX512", False, False),
        ],
    )
    def test_which_processors(self, monkeypatch, vendor, capability, mkl, faster):
        monkeypatch.undo()
        monkeypatch.setattr(module, "_vendor", lambda: vendor)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
        assert module._is_faster() is faster

    @pytest.mark.parametrize("system", ["Linux", "Darwin"])
    def test_the_vendor(self, monkeypatch, system):
        monkeypatch.setattr(module.platform, "system", lambda: system)
        vendor = module._vendor.__wrapped__()
        assert isinstance(vendor, str) and (vendor == "" or system == "Linux")

    @pytest.mark.parametrize("channels", [(24, 32), (32, 24), (8, 8)])
    def test_other_channels(self, channels):
        tensors = inputs((5, channels[0]), channels[1])[:3]
        assert "multiples of 16" in can_run(*tensors[:2])
        assert self.names(*tensors, backend="compiled") == []
        torch.testing.assert_close(linear(*tensors), F.linear(*tensors))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_other_dtypes(self, dtype):
        tensors = [t.to(dtype) for t in inputs((5, 32), 48)[:3]]
        assert f"float32 on cpu, not {str(dtype)[6:]}" in can_run(*tensors[:2])
        assert self.names(*tensors, backend="compiled") == []
        assert torch.equal(linear(*tensors), F.linear(*tensors))

    def test_autocast(self):
        tensors = inputs((5, 32), 48)[:3]
        with torch.autocast("cpu", torch.bfloat16):
            assert self.names(*tensors) == []
            assert torch.equal(linear(*tensors), F.linear(*tensors))

    def test_transforms(self):
        x, weight, bias, _ = inputs((5, 32), 48)
        out = torch.func.vmap(linear, (0, None, None))(x, weight, bias)
        torch.testing.assert_close(out, F.linear(x, weight, bias))

    def test_in_a_training_step_of_a_block(self, monkeypatch):
        def step():
            torch.manual_seed(0)
            block, x = IwinBlock(16, 2, 3), torch.randn(1, 4, 5, 16)
            with use_backend("auto"), Calls() as calls:
                grads = torch.autograd.grad(block(x).sum(), tuple(block.parameters()))
            return [name for name in calls.names if name.startswith("linear")], grads

        names, grads = step()
        for name in ("linear", "linear_backward_input", "linear_backward_weight"):
            assert name in names
        monkeypatch.setattr(module, "_is_faster", lambda: False)
        names, expected = step()
        assert names == []
        torch.testing.assert_close(grads, expected, rtol=1e-4, atol=1e-4)
