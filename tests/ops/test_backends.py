"""Which backend serves a call, and what PyTorch knows of the compiled operators."""

import logging
import re
import subprocess
import sys

import pytest
import torch
from op_backends import not_emulated
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from iwin_d2.errors import ConfigError
from iwin_d2.ops import (
    backends,
    compiled,
    describe_backends,
    extension,
    interleaved_window_attention,
    interleaved_window_merge,
    interleaved_window_partition,
    use_backend,
)

needs_extension = pytest.mark.skipif(
    not extension.loaded(), reason=f"the extension is not loaded: {extension.reason()}"
)


SERVED = backends.OPERATORS["attention"][1]["cpu"]
UNSERVED = torch.float64 if torch.float16 in SERVED else torch.float16


def attend(qkv, pad_qkv=None, num_heads=2):
    return interleaved_window_attention(qkv, num_heads, 4, pad_qkv)


def inputs(*size, dtype=torch.float32, **kwargs):
    """A projected map for two heads of 8 and the row of its padding."""
    torch.manual_seed(0)
    qkv = torch.randn(2, *(size or (9, 10)), 48, dtype=dtype, **kwargs)
    return qkv, torch.randn(48, dtype=dtype, **kwargs)


@pytest.fixture(autouse=True)
def as_after_the_import(monkeypatch):
    """Nothing chosen and nothing said, whatever the environment and other tests did."""
    monkeypatch.setattr(backends, "_wanted", "auto")
    monkeypatch.setattr(backends, "_logged", set())


class TestChoice:
    """The reasons, and what becomes of them."""

    @needs_extension
    def test_the_compiled_operators_serve_what_they_can(self, monkeypatch):
        names = []
        for name in ("attention", "partition", "merge"):
            original = getattr(compiled, name)

            def called(*args, name=name, original=original):
                names.append(name)
                return original(*args)

            monkeypatch.setattr(compiled, name, called)

        def call_all():
            qkv, pad = inputs()
            attend(qkv, pad)
            windows = interleaved_window_partition(qkv, 4)
            interleaved_window_merge(windows, 4, (9, 10))

        with use_backend("compiled"):
            call_all()
        with use_backend("auto"):
            call_all()
        assert names == 2 * ["attention", "partition", "merge"]
        with use_backend("reference"):
            call_all()
        assert len(names) == 6

    @needs_extension
    @pytest.mark.parametrize(
        ("qkv", "heads", "reason"),
        [
            (torch.zeros(1, 4, 4, 48, dtype=UNSERVED), 2, r"bfloat16, float\d\d on cpu, not float"),
            (torch.zeros(1, 4, 4, 60), 2, "multiples of 8 up to 128, not 10"),
            (torch.zeros(1, 4, 4, 408), 1, "multiples of 8 up to 128, not 136"),
            (torch.zeros(1, 4, 4, 0), 1, "multiples of 8 up to 128, not 0"),
        ],
    )
    def test_what_the_attention_does_not_serve(self, qkv, heads, reason, caplog):
        assert re.search(reason, compiled.can_run_attention(qkv, heads))
        with use_backend("compiled"), pytest.raises(ConfigError, match=reason):
            attend(qkv, None, heads)
        with use_backend("auto"), caplog.at_level(logging.INFO):
            out = attend(qkv, None, heads)
            attend(qkv, None, heads)
        assert out.shape[-1] == qkv.shape[-1] // 3
        assert [record.levelname for record in caplog.records] == ["WARNING"]  # once
        assert re.search(reason, caplog.text) and "plain PyTorch" in caplog.text

    @needs_extension
    def test_a_device_without_kernels(self, monkeypatch):
        monkeypatch.setitem(backends._DEVICES, "attention", ("cpu",))
        qkv, pad = inputs()
        assert compiled.can_run_attention(qkv, 2) is None
        assert "no attention for meta" in compiled.can_run_attention(qkv.to("meta"), 2)
        assert attend(qkv.to("meta"), pad.to("meta")).shape == (2, 9, 10, 16)

    @needs_extension
    def test_an_extension_of_an_older_version(self, monkeypatch):
        monkeypatch.setitem(backends.OPERATORS, "new", ("interleaved_new", {"cpu": None}))
        monkeypatch.setitem(backends._DEVICES, "new", backends._devices_with_kernel("new"))
        assert "no new for cpu" in backends.why_not("new", torch.zeros(1))
        assert "no device" in describe_backends()["interleaved_new"]

    @needs_extension
    def test_transforms_run_in_plain_pytorch(self, caplog):
        qkv, pad = inputs()
        stack = torch.stack([qkv, 2 * qkv])
        expected = torch.stack([attend(x, pad) for x in stack])
        with caplog.at_level(logging.WARNING), sdpa_kernel(SDPBackend.MATH):
            torch.testing.assert_close(torch.func.vmap(lambda x: attend(x, pad))(stack), expected)
            torch.func.jvp(lambda x: attend(x, pad), (qkv,), (qkv,))
            with torch.autograd.forward_ad.dual_level():
                attend(torch.autograd.forward_ad.make_dual(qkv, qkv), pad)
            gradient = torch.func.grad(lambda x: attend(x, pad).sum())(qkv)
        leaf = qkv.clone().requires_grad_()
        attend(leaf, pad).sum().backward()
        torch.testing.assert_close(gradient, leaf.grad, rtol=1e-4, atol=1e-4)
        assert not caplog.records  # as it should be: nothing to warn of

    def test_the_context_restores_what_was(self):
        before = backends._wanted
        with pytest.raises(ZeroDivisionError), use_backend("reference"):
            with use_backend("compiled"):
                assert backends._wanted == "compiled"
            assert backends._wanted == "reference"
            raise ZeroDivisionError
        assert backends._wanted == before
        with (
            pytest.raises(ValueError, match=r"auto, compiled, reference, got 'fast'"),
            use_backend("fast"),
        ):
            pass


class TestEnvironment:
    """IWIN_D2_ATTENTION, and life without the extension."""

    @staticmethod
    def run(script, **environment):
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            env={"PATH": "", **environment},
            capture_output=True,
            text=True,
        )

    def test_a_value_that_is_not_known_ends_in_one_sentence(self):
        result = self.run("import iwin_d2.ops", IWIN_D2_ATTENTION="fast")
        assert result.returncode == 1
        assert result.stderr == (
            "IWIN_D2_ATTENTION='fast' is not known: set it to one of auto, compiled, reference, "
            "or unset it.\n"
        )

    def test_without_the_extension(self, tmp_path):
        script = """
import torch
from iwin_d2.errors import ConfigError
from iwin_d2.ops import *
from iwin_d2.ops import extension, reference
assert not extension.loaded()
x = torch.arange(2. * 5 * 6 * 48).view(2, 5, 6, 48).sin()
windows = interleaved_window_partition(x, 4)
assert torch.equal(interleaved_window_merge(windows, 4, (5, 6)), x)
out = interleaved_window_attention(x, 2, 4)
assert torch.equal(out, reference.attention(x[:, None], 2, (4, 4), None, None)[:, 0])
print(*set(describe_backends().values()), sep="\\n")
with use_backend("compiled"):
    print(*set(describe_backends().values()), sep="\\n")
    try:
        interleaved_window_attention(x, 2, 4)
    except ConfigError as error:
        print(error)
"""
        nowhere = str(tmp_path / "no.so")
        result = self.run(script, IWIN_D2_EXTENSION=nowhere, IWIN_D2_ATTENTION=" AUTO ")
        assert result.returncode == 0, result.stderr
        auto, forced, refusal = result.stdout.splitlines()
        assert auto.startswith("reference (plain PyTorch): ") and nowhere in auto
        assert forced.startswith("none: ") and nowhere in forced
        assert "IWIN_D2_ATTENTION=compiled" in refusal and nowhere in refusal
        # Said once, for all operators.
        assert result.stderr.count("\n") == 1
        assert "operators run in plain PyTorch" in result.stderr and nowhere in result.stderr

    @pytest.mark.parametrize(
        ("value", "choice"),
        [(None, "auto"), ("", "auto"), ("Reference ", "reference"), ("compiled", "compiled")],
    )
    def test_values(self, value, choice, monkeypatch):
        monkeypatch.delenv("IWIN_D2_ATTENTION", raising=False)
        if value is not None:
            monkeypatch.setenv("IWIN_D2_ATTENTION", value)
        assert backends._from_environment() == choice


def test_every_operator_is_described():
    with use_backend("reference"):
        assert set(describe_backends().values()) == {
            "reference (plain PyTorch): IWIN_D2_ATTENTION=reference"
        }
    lines = describe_backends()
    assert {
        "interleaved_window_attention",
        "interleaved_window_merge",
        "interleaved_window_partition",
    } <= lines.keys()
    if extension.loaded():
        capability = torch.ops.iwin_d2.cpu_capability()
        served = ", ".join(str(dtype).removeprefix("torch.") for dtype in SERVED)
        on_cuda = {"attention": "", "merge": ""}
        if torch.ops.iwin_d2.merge.default.has_kernel_for_dispatch_key(torch.DispatchKey.CUDA):
            on_cuda = {
                "attention": "; cuda: float32, bfloat16, float16",
                "merge": "; cuda: any dtype",
            }
        assert lines["interleaved_window_attention"] == (
            f"compiled on cpu ({capability}): {served}{on_cuda['attention']}"
        )
        assert lines["interleaved_window_merge"] == (
            f"compiled on cpu ({capability}): any dtype{on_cuda['merge']}"
        )


@needs_extension
class TestDerivatives:
    def test_the_second_derivative_of_the_attention_says_what_to_do(self):
        qkv, pad = inputs(requires_grad=True)

        def second_derivative():
            (gradient,) = torch.autograd.grad(
                attend(qkv, pad).square().sum(), qkv, create_graph=True
            )
            return torch.autograd.grad(gradient.square().sum(), qkv)[0]

        with use_backend("compiled"), pytest.raises(RuntimeError) as error:
            second_derivative()
        assert "second derivatives of interleaved_window_attention" in str(error.value)
        assert "IWIN_D2_ATTENTION=reference" in str(error.value)
        with use_backend("reference"), sdpa_kernel(SDPBackend.MATH):  # as the sentence says
            assert second_derivative().shape == qkv.shape

    def test_partition_and_merge_have_all_derivatives(self):
        x = torch.randn(1, 3, 5, 2, dtype=torch.float64, requires_grad=True)

        def there_and_back(x):
            windows = interleaved_window_partition(x, 2)
            return interleaved_window_merge(windows**3, 2, (3, 5))

        with use_backend("compiled"):
            assert torch.autograd.gradgradcheck(there_and_back, x)

    def test_nothing_but_the_arguments_is_kept(self):
        qkv, pad = inputs(requires_grad=True)
        kept = []
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x)
        with use_backend("compiled"), hooks:
            attend(qkv, pad)
            attend(qkv)
            interleaved_window_merge(interleaved_window_partition(qkv, 4), 4, (9, 10))
        assert [x.data_ptr() for x in kept] == [x.data_ptr() for x in (qkv, pad, qkv)]

    @pytest.mark.parametrize("reentrant", [False, True])
    def test_activation_checkpointing(self, reentrant):
        qkv, pad = inputs(requires_grad=True)
        with use_backend("compiled"):
            expected = torch.autograd.grad(attend(qkv, pad).sin().sum(), (qkv, pad))
            out = checkpoint(lambda *x: attend(*x).sin(), qkv, pad, use_reentrant=reentrant)
            out.sum().backward()
        assert torch.equal(qkv.grad, expected[0]) and torch.equal(pad.grad, expected[1])


@needs_extension
class TestAutocast:
    # PyTorch's own operators take no float16 there.
    @pytest.mark.parametrize("dtype", [dtype for dtype in SERVED if dtype != torch.float16])
    def test_as_the_reference(self, dtype):
        results = []
        for backend in ("compiled", "reference"):
            qkv, pad = inputs(dtype=dtype, requires_grad=True)
            pad = pad.detach().float().requires_grad_()  # as the bias of a linear layer
            with use_backend(backend), torch.autocast("cpu", torch.bfloat16):
                out = attend(qkv, pad)
            out.sum().backward()
            results.append((out, qkv.grad, pad.grad))
        for ours, truth in zip(*results):
            assert ours.dtype == truth.dtype
            torch.testing.assert_close(ours, truth, rtol=2e-2, atol=2e-2)

    def test_the_operator_itself_casts(self):
        qkv, pad = inputs()
        with torch.autocast("cpu", torch.bfloat16):
            out = torch.ops.iwin_d2.attention(qkv, 2, (4, 4), pad.double().float(), 0.5)
        low = torch.ops.iwin_d2.attention(qkv.bfloat16(), 2, (4, 4), pad.bfloat16(), 0.5)
        assert torch.equal(out, low)

    @not_emulated
    def test_a_dtype_that_is_not_served(self, caplog):
        qkv, pad = inputs()
        with torch.autocast("cpu", torch.float16), caplog.at_level(logging.INFO):
            assert attend(qkv, pad).dtype == torch.float16
        assert "not float16" in caplog.text

    def test_copies_keep_their_dtype(self):
        qkv, _ = inputs()
        with use_backend("compiled"), torch.autocast("cpu", torch.bfloat16):
            windows = interleaved_window_partition(qkv, 4)
            assert interleaved_window_merge(windows, 4, (9, 10)).dtype == torch.float32


@pytest.mark.parametrize("backend", ["reference", pytest.param("compiled", marks=needs_extension)])
@pytest.mark.parametrize("frames", [1, 3])
def test_flops(backend, frames):
    qkv = torch.randn(2, frames, 9, 10, 48, requires_grad=True)
    windows, tokens, dim = 2 * 3 * 3, frames * 16, 16
    with use_backend(backend):
        with FlopCounterMode(display=False) as forward:
            out = attend(qkv)
        with FlopCounterMode(display=False) as backward:
            out.sum().backward()
    assert forward.get_total_flops() == 2 * (2 * windows * tokens**2 * dim)
    assert backward.get_total_flops() == 5 * (2 * windows * tokens**2 * dim)


def operators_of(graph):
    return [str(node.target) for node in graph.nodes if node.op == "call_function"]


@needs_extension
class TestTracing:
    """torch.compile keeps the operators; what is exported is free of them."""

    SIZES = ((9, 10), (11, 13), (8, 12), (5, 3))

    @pytest.mark.parametrize("autocast", [False, True])
    def test_compiled_whole_and_once_for_all_sizes(self, autocast):
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("aot_eager")
        function = torch.compile(attend, fullgraph=True, backend=counter, dynamic=True)
        with use_backend("compiled"), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            for size in self.SIZES:
                qkv, pad = inputs(*size, requires_grad=True)
                out, expected = function(qkv, pad), attend(qkv, pad)
                assert torch.equal(out, expected)
                gradients = torch.autograd.grad(out.float().sin().sum(), (qkv, pad))
                truth = torch.autograd.grad(expected.float().sin().sum(), (qkv, pad))
                for gradient, other in zip(gradients, truth):
                    torch.testing.assert_close(gradient, other)
        assert counter.frame_count == 1
        assert "iwin_d2.attention.default" in operators_of(counter.graphs[0].graph)

    def test_there_and_back_compiled(self):
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("aot_eager")

        def there_and_back(x):
            windows = interleaved_window_partition(x, (4, 3))
            return interleaved_window_merge(2 * windows, (4, 3), x.shape[1:3])

        function = torch.compile(there_and_back, fullgraph=True, backend=counter, dynamic=True)
        with use_backend("compiled"):
            for size in self.SIZES:
                x = torch.randn(2, *size, 7, requires_grad=True)
                out = function(x)
                assert torch.equal(out, 2 * x)
                out.sum().backward()
                assert torch.equal(x.grad, torch.full_like(x, 2))
        assert counter.frame_count == 1
        assert {"iwin_d2.partition.default", "iwin_d2.merge.default"} <= set(
            operators_of(counter.graphs[0].graph)
        )

    def test_another_choice_compiles_anew(self):
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("aot_eager")
        function = torch.compile(attend, fullgraph=True, backend=counter)
        qkv, pad = inputs()
        for backend in ("compiled", "reference"):
            with use_backend(backend):
                torch.testing.assert_close(function(qkv, pad), attend(qkv, pad))
        with_operator = ["iwin_d2" in str(operators_of(graph.graph)) for graph in counter.graphs]
        assert with_operator == [True, False]

    def test_a_fallback_compiles_whole_and_says_so(self, caplog):
        torch._dynamo.reset()
        function = torch.compile(attend, fullgraph=True, backend="aot_eager")
        qkv = torch.randn(1, 5, 6, 60)  # heads of 10
        torch.testing.assert_close(function(qkv), attend(qkv))
        assert "multiples of 8 up to 128, not 10" in caplog.text

    def test_compiled_transforms_run_in_plain_pytorch(self):
        torch._dynamo.reset()
        qkv, pad = inputs()
        gradient = torch.func.grad(lambda x: attend(x, pad).sum())
        function = torch.compile(gradient, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(function(qkv), gradient(qkv), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("strict", [False, True])
    def test_exported_without_operators(self, strict, caplog):
        class Attention(torch.nn.Module):
            def forward(self, qkv, pad):
                return attend(qkv, pad)

        height, width = torch.export.Dim("height", min=5), torch.export.Dim("width", min=5)
        program = torch.export.export(
            Attention(), inputs(), dynamic_shapes=({1: height, 2: width}, None), strict=strict
        )
        assert "iwin_d2" not in str(operators_of(program.graph))
        for size in ((9, 10), (14, 7)):
            qkv, pad = inputs(*size)
            torch.testing.assert_close(program.module()(qkv, pad), attend(qkv, pad))
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    @pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
    def test_traced_without_operators_for_all_sizes(self):
        traced = torch.jit.trace(attend, inputs())
        assert "iwin_d2" not in str([node.kind() for node in traced.graph.nodes()])
        for size in self.SIZES:
            qkv, pad = inputs(*size)
            torch.testing.assert_close(traced(qkv, pad), attend(qkv, pad))

    def test_shapes_alone(self):
        qkv, pad = (x.to("meta") for x in inputs())
        with use_backend("compiled"):
            assert attend(qkv, pad).shape == (2, 9, 10, 16)
            windows = interleaved_window_partition(qkv, 4)
            assert windows.shape == (18, 16, 48)
            assert interleaved_window_merge(windows, 4, (9, 10)).shape == qkv.shape


@needs_extension
def test_modules_may_be_imported_anew(monkeypatch):
    """A second registration of an operator would be an error."""
    monkeypatch.delenv("IWIN_D2_ATTENTION", raising=False)
    for name in [n for n in sys.modules if n.startswith("iwin_d2.ops")]:
        monkeypatch.delitem(sys.modules, name)
    from iwin_d2.ops import interleaved_window_attention as anew

    qkv, pad = inputs(requires_grad=True)
    out = anew(qkv, 2, 4, pad)
    assert anew is not interleaved_window_attention and torch.equal(out, attend(qkv, pad))
    out.sum().backward()
