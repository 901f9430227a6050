"""Blocks and downsampling as one operator: where that is done, where not, and equal everywhere."""

import contextlib
import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules import module as all_modules
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as pruning
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth

from iwin_d2.benchmark.published import PublishedBlock
from iwin_d2.modeling import IwinTransformer
from iwin_d2.modeling.blocks import Downsample, InterleavedWindowAttention, IwinBlock, Mlp
from iwin_d2.ops import extension, use_backend

needs_extension = pytest.mark.skipif(not extension.loaded(), reason=extension.reason() or "-")
pytestmark = needs_extension
FUSED = ("iwin_block", "downsample")


@pytest.fixture(autouse=True)
def whatever_the_environment_says():
    with use_backend("auto"):
        yield


class Calls(TorchDispatchMode):
    """The names of the fused operators that are called meanwhile."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "iwin_d2" and func._opname in FUSED:
            self.names.append(func._opname)
        return func(*args, **(kwargs or {}))


def make_block(window_size=3, **kwargs):
    torch.manual_seed(0)
    block = IwinBlock(16, 2, window_size, **kwargs).eval()
    nn.init.normal_(block.attn.qkv.weight, std=0.5)  # attention that is far from uniform
    return block


def make_downsample():
    torch.manual_seed(0)
    return Downsample(16).eval()


def make_backbone(**kwargs):
    torch.manual_seed(0)
    settings = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}
    return IwinTransformer(window_size=3, **settings, **kwargs).eval()


def image_map():
    return torch.randn(2, 7, 5, 16, generator=torch.Generator().manual_seed(1))


def clip_map():
    return torch.randn(2, 3, 7, 5, 16, generator=torch.Generator().manual_seed(1))


def fused_calls(module, x):
    """Run, compare with plain PyTorch; return which fused operators were called."""
    torch.manual_seed(2)
    with Calls() as calls:
        out = module(x)
    torch.manual_seed(2)
    with use_backend("reference"), Calls() as none:
        expected = module(x)
    assert none.names == []
    assert_same(out, expected)
    return calls.names


def assert_same(out, expected, tolerance=1e-5):
    assert out.shape == expected.shape and out.dtype == expected.dtype
    assert out.requires_grad == expected.requires_grad
    size = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance * size)


class TestUsed:
    """Nobody can tell: then it is one operator."""

    @pytest.mark.parametrize("x", [image_map(), clip_map()], ids=["image", "clip"])
    @pytest.mark.parametrize("depthwise", [True, False])
    @pytest.mark.parametrize("no_gradients", [torch.no_grad, torch.inference_mode])
    def test_without_gradients(self, x, depthwise, no_gradients):
        with no_gradients():
            assert fused_calls(make_block(depthwise=depthwise), x) == ["iwin_block"]
            assert fused_calls(make_downsample(), x) == ["downsample"]

    @pytest.mark.parametrize("make", [make_block, make_downsample])
    def test_frozen_parameters_in_training(self, make):
        module = make().train().requires_grad_(False)
        assert len(fused_calls(module, image_map())) == 1
        assert len(fused_calls(module, image_map().requires_grad_())) == 0

    def test_training_mode_alone_changes_nothing(self):
        with torch.no_grad():
            assert fused_calls(make_block().train(), image_map()) == ["iwin_block"]

    def test_drop_path_that_rests(self):
        block = make_block(drop_path=0.5)
        with torch.no_grad():
            assert fused_calls(block, image_map()) == ["iwin_block"]
            block.train()
            block.drop_path.eval()
            assert fused_calls(block, image_map()) == ["iwin_block"]

    @pytest.mark.parametrize("window_size", [(2, 4), [3, 1], 1, 9])
    def test_windows(self, window_size):
        with torch.no_grad():
            assert fused_calls(make_block(window_size), image_map()) == ["iwin_block"]

    @torch.no_grad()
    def test_a_convolution_without_bias(self):
        block = make_block()
        block.dwconv.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        assert fused_calls(block, image_map()) == ["iwin_block"]

    @torch.no_grad()
    def test_other_strides(self):
        x = image_map().permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        assert not x.is_contiguous()
        for module in (make_block(), make_downsample()):
            assert len(fused_calls(module, x)) == 1

    @torch.no_grad()
    def test_settings_are_read_at_every_call(self):
        block = make_block()
        before = block(image_map())
        for name, value in (("num_heads", 4), ("window_size", 2)):
            setattr(block.attn, name, value)
            assert fused_calls(block, image_map()) == ["iwin_block"]
            assert not torch.allclose(block(image_map()), before)
        block.norm1.eps = block.norm2.eps = 0.5
        downsample = make_downsample()
        downsample.norm.eps = 0.5
        assert fused_calls(block, image_map()) == ["iwin_block"]
        assert fused_calls(downsample, image_map()) == ["downsample"]

    @torch.no_grad()
    def test_hooks_of_the_module_itself_are_called(self):
        for module in (make_block(), make_downsample()):
            module.register_forward_pre_hook(lambda _, args: (2 * args[0],))
            module.register_forward_hook(lambda _, args, out: out + args[0].sum())
            assert len(fused_calls(module, image_map())) == 1

    @torch.no_grad()
    def test_a_backbone(self):
        model, images = make_backbone(), torch.randn(1, 3, 45, 52)
        with Calls() as calls:
            outputs = model(images)
        assert calls.names == [*["iwin_block", "downsample"] * 3, "iwin_block"]
        with use_backend("reference"):
            expected = model(images)
        for name, out in outputs.items():
            assert_same(out, expected[name])

    @pytest.mark.parametrize("use_checkpoint", [False, True])
    def test_frozen_stages_in_training(self, use_checkpoint):
        model = make_backbone(freeze_at=3, use_checkpoint=use_checkpoint, drop_path_rate=0.1)
        model.train()
        images = torch.randn(2, 3, 40, 36)

        def gradients():
            torch.manual_seed(2)
            loss = sum(x.square().sum() for x in model(images).values())
            return torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])

        with Calls() as calls:
            found = gradients()
        assert calls.names == ["iwin_block", "downsample"] * 2
        with use_backend("reference"):
            expected = gradients()
        for grad, truth in zip(found, expected, strict=True):
            assert_same(grad, truth, 1e-4)


class Adapted(nn.Linear):
    """A linear layer with a term of its own, as adapters have it."""

    def forward(self, x):
        return super().forward(x) + x.mean(-1, keepdim=True)


class OwnAttention(InterleavedWindowAttention):
    def forward(self, x):
        return 2 * super().forward(x)


class OwnMlp(Mlp):
    def forward(self, x):
        return 2 * super().forward(x)


class Double(nn.Module):
    def forward(self, x):
        return 2 * x


class Quantised(torch.Tensor):
    """A tensor that stands for another: twice what is stored."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            args = [2 * x.as_subclass(torch.Tensor) if type(x) is cls else x for x in args]
            return func(*args, **(kwargs or {}))


def replaced(name, make):
    """A change that puts another module in the place of `name`."""

    def change(module):
        torch.manual_seed(3)
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, make().eval())

    return change


def same_class(name, kind):
    """A change that gives a module another class, with its parameters."""

    def change(module):
        module.get_submodule(name).__class__ = kind

    return change


def patched(name):
    def change(module):
        part = module.get_submodule(name)
        forward = part.forward
        part.forward = lambda x: 2 * forward(x)

    return change


def listened(name):
    """A hook that changes the output."""

    def change(module):
        module.get_submodule(name).register_forward_hook(lambda _, args, out: 2 * out)

    return change


def weight_normalised(name):
    return lambda module: parametrizations.weight_norm(module.get_submodule(name))


def pruned(name):
    return lambda module: pruning.l1_unstructured(module.get_submodule(name), "weight", 0.5)


def quantised(name):
    def change(module):
        part = module.get_submodule(name)
        part._parameters["weight"] = part.weight.detach().as_subclass(Quantised)

    return change


def narrow_attention(block):
    """Heads of 4 channels instead of 8."""
    block.attn.qkv, block.attn.proj = nn.Linear(16, 24), nn.Linear(8, 16)


def other_eps(block):
    block.norm2.eps = 0.5


LINEAR = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
CONVOLUTION = "dwconv.depthwise"
PARTS = ("norm1", "attn", "norm2", "mlp", "dwconv", "drop_path", *LINEAR, CONVOLUTION)
CHANGES = {
    **{f"hook of {name}": listened(name) for name in PARTS},
    **{f"forward of {name}": patched(name) for name in PARTS},
    **{f"adapted {name}": same_class(name, Adapted) for name in LINEAR},
    **{f"weight norm of {name}": weight_normalised(name) for name in (*LINEAR, CONVOLUTION)},
    **{f"pruned {name}": pruned(name) for name in (*LINEAR, CONVOLUTION)},
    **{f"quantised {name}": quantised(name) for name in (*LINEAR, "norm1", CONVOLUTION)},
    "attention": same_class("attn", OwnAttention),
    "MLP": same_class("mlp", OwnMlp),
    "norm": replaced("norm2", nn.Identity),
    "norm without bias": replaced("norm1", lambda: nn.LayerNorm(16, bias=False)),
    "norm without parameters": replaced(
        "norm1", lambda: nn.LayerNorm(16, elementwise_affine=False)
    ),
    "norm over columns": replaced("norm2", lambda: nn.LayerNorm((5, 16))),
    "eps": other_eps,
    "drop path": replaced("drop_path", Double),
    "linear without bias": replaced("mlp.fc2", lambda: nn.Linear(64, 16, bias=False)),
    "projection without bias": replaced("attn.qkv", lambda: nn.Linear(16, 48, bias=False)),
    "projection of another class": replaced("attn.qkv", lambda: nn.Sequential(nn.Linear(16, 48))),
    "narrow attention": narrow_attention,
    "convolution module": replaced("dwconv", lambda: nn.Linear(16, 16)),
    "dilation": replaced(CONVOLUTION, lambda: nn.Conv2d(16, 16, 3, 1, 2, 2, groups=16)),
    "kernel": replaced(CONVOLUTION, lambda: nn.Conv2d(16, 16, 5, padding=2, groups=16)),
    "groups": replaced(CONVOLUTION, lambda: nn.Conv2d(16, 16, 3, padding=1, groups=4)),
    "padding mode": replaced(
        CONVOLUTION, lambda: nn.Conv2d(16, 16, 3, padding=1, groups=16, padding_mode="reflect")
    ),
}
DOWNSAMPLE_CHANGES = {
    **{f"hook of {name}": listened(name) for name in ("norm", "conv")},
    **{f"forward of {name}": patched(name) for name in ("norm", "conv")},
    **{f"quantised {name}": quantised(name) for name in ("norm", "conv")},
    "weight norm": weight_normalised("conv"),
    "pruned": pruned("conv"),
    "norm": replaced("norm", nn.Identity),
    "norm without bias": replaced("norm", lambda: nn.LayerNorm(16, bias=False)),
    "norm without parameters": replaced("norm", lambda: nn.LayerNorm(16, elementwise_affine=False)),
    "no bias": replaced("conv", lambda: nn.Conv2d(16, 32, 3, stride=2, bias=False)),
    "padding": replaced("conv", lambda: nn.Conv2d(16, 32, 3, stride=2, padding=1)),
    "stride": replaced("conv", lambda: nn.Conv2d(16, 32, 3, stride=1)),
    "kernel": replaced("conv", lambda: nn.Conv2d(16, 32, 2, stride=2)),
    "dilation": replaced("conv", lambda: nn.Conv2d(16, 32, 3, stride=2, dilation=2)),
    "groups": replaced("conv", lambda: nn.Conv2d(16, 32, 3, stride=2, groups=4)),
    "channels": replaced("conv", lambda: nn.Conv2d(16, 24, 3, stride=2)),
}


class TestNotUsed:
    """Somebody could tell: then it is the parts."""

    @torch.no_grad()
    @pytest.mark.parametrize("change", CHANGES)
    def test_a_changed_block(self, change):
        block = make_block()
        before = block(image_map())
        CHANGES[change](block)
        assert fused_calls(block, image_map()) == []
        assert not torch.allclose(block(image_map()), before)

    @torch.no_grad()
    @pytest.mark.parametrize("change", DOWNSAMPLE_CHANGES)
    def test_a_changed_downsampling(self, change):
        module = make_downsample()
        before = module(image_map())
        DOWNSAMPLE_CHANGES[change](module)
        assert fused_calls(module, image_map()) == []
        out = module(image_map())
        assert out.shape != before.shape or not torch.allclose(out, before)

    @torch.no_grad()
    @pytest.mark.parametrize("name", PARTS)
    @pytest.mark.parametrize(
        "register",
        ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"],
    )
    def test_hooks_of_parts(self, name, register):
        block, calls = make_block(), []
        handle = getattr(block.get_submodule(name), register)(lambda *args: calls.append(name))
        assert fused_calls(block, image_map()) == []
        per_pass = 2 if name == "drop_path" else 1
        assert len(calls) == (0 if "backward" in register else 2 * per_pass)
        handle.remove()
        assert fused_calls(block, image_map()) == ["iwin_block"]

    @torch.no_grad()
    @pytest.mark.parametrize(
        "register",
        [
            all_modules.register_module_forward_hook,
            all_modules.register_module_forward_pre_hook,
            all_modules.register_module_full_backward_hook,
            all_modules.register_module_full_backward_pre_hook,
        ],
    )
    def test_hooks_of_all_modules(self, register):
        seen = set()
        block, downsample = make_block(), make_downsample()
        handle = register(lambda module, *args: seen.add(module) and None)
        try:
            assert fused_calls(block, image_map()) == []
            assert fused_calls(downsample, image_map()) == []
        finally:
            handle.remove()
        if "backward" not in register.__name__:
            assert seen >= {*block.modules(), *downsample.modules()}
        assert fused_calls(block, image_map()) == ["iwin_block"]

    @pytest.mark.parametrize("name", [name for name, _ in make_block().named_parameters()])
    def test_one_parameter_that_wants_gradients(self, name):
        block = make_block().requires_grad_(False)
        block.get_parameter(name).requires_grad_()
        assert fused_calls(block, image_map()) == []

    @pytest.mark.parametrize("name", ["norm.weight", "norm.bias", "conv.weight", "conv.bias"])
    def test_one_parameter_of_the_downsampling(self, name):
        module = make_downsample().requires_grad_(False)
        module.get_parameter(name).requires_grad_()
        assert fused_calls(module, image_map()) == []

    def test_a_weight_that_is_no_parameter(self):
        """As another network makes it: the module knows of no parameter that wants gradients."""
        block = make_block().requires_grad_(False)
        factor = torch.ones((), requires_grad=True)
        weight = factor * block.mlp.fc1.weight
        del block.mlp.fc1.weight
        block.mlp.fc1.weight = weight
        assert fused_calls(block, image_map()) == []
        block(image_map()).sum().backward()
        assert factor.grad is not None
        with torch.no_grad():
            assert fused_calls(block, image_map()) == ["iwin_block"]

    @pytest.mark.parametrize("make", [make_block, make_downsample])
    def test_gradients_of_the_map(self, make):
        module = make().requires_grad_(False)
        x = image_map().requires_grad_()
        assert fused_calls(module, x) == []
        checkpointed = checkpoint(module, x, use_reentrant=False)
        grads = [torch.autograd.grad(y.sum(), x)[0] for y in (module(x), checkpointed)]
        assert grads[0].abs().sum() > 0 and torch.equal(*grads)

    @torch.no_grad()
    def test_drop_path_in_training(self):
        block = make_block(drop_path=0.5).train()
        assert fused_calls(block, image_map()) == []
        block.eval()
        block.drop_path.train()
        assert fused_calls(block, image_map()) == []

    @torch.no_grad()
    def test_a_drop_path_of_a_class_of_its_own(self):
        class Scaled(StochasticDepth):
            def forward(self, x):
                return x if self.training else (1 - self.p) * x

        block = make_block()
        before = block(image_map())
        block.drop_path = Scaled(0.5, "row").eval()
        assert fused_calls(block, image_map()) == []
        assert not torch.allclose(block(image_map()), before)

    @torch.no_grad()
    @pytest.mark.parametrize("wish", ["auto", "compiled"])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
    @pytest.mark.parametrize("make", [make_block, make_downsample])
    def test_dtypes_that_the_fused_operators_have_not(self, make, dtype, wish):
        """That is no error even where compiled operators are asked for: the parts are compiled."""
        module, x = make().to(dtype), image_map().to(dtype)
        with use_backend(wish), Calls() as calls:
            out = module(x)
        assert calls.names == [] and out.dtype == dtype
        exact = module.double()(x.double())
        torch.testing.assert_close(out.double(), exact, rtol=2e-2, atol=2e-2 * exact.abs().max())

    @torch.no_grad()
    @pytest.mark.parametrize("wish", ["auto", "compiled"])
    def test_channels_that_the_fused_operators_have_not(self, wish, caplog):
        x = torch.randn(1, 7, 5, 24)
        for module in (IwinBlock(24, 3, 3).eval(), Downsample(24).eval()):
            with use_backend(wish):
                assert fused_calls(module, x) == []
        assert not caplog.records  # nothing is amiss

    @torch.no_grad()
    @pytest.mark.parametrize("wish", ["auto", "compiled"])
    @pytest.mark.parametrize("make", [make_block, make_downsample])
    def test_autocast(self, make, wish):
        module, results = make(), []
        for backend in (wish, "reference"):
            with torch.autocast("cpu", torch.bfloat16), use_backend(backend), Calls() as calls:
                results.append(module(image_map()))
            assert calls.names == []
        assert_same(*results, tolerance=2e-2)

    @torch.no_grad()
    @pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
    @pytest.mark.parametrize("make", [make_block, make_downsample])
    def test_export_and_trace(self, make):
        module, x = make(), image_map()
        exported = torch.export.export(module, (x,))
        traced = torch.jit.trace(module, x)
        assert "iwin_d2" not in str([node.target for node in exported.graph.nodes])
        assert "iwin_d2" not in str([node.kind() for node in traced.inlined_graph.nodes()])
        for program in (exported.module(), traced):
            assert_same(program(x), module(x))

    @pytest.mark.parametrize("make", [make_block, make_downsample])
    def test_transforms(self, make):
        module, x = make(), torch.stack([image_map(), 2 * image_map()])
        with torch.no_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            assert_same(torch.func.vmap(module)(x), torch.stack([module(y) for y in x]))
            parameters = {name: 2 * p for name, p in module.named_parameters()}
            out = torch.func.functional_call(module, parameters, (x[0],))
        doubled = copy.deepcopy(module)
        doubled.load_state_dict(parameters)
        assert_same(out, doubled(x[0]).detach())

    @torch.no_grad()
    @pytest.mark.parametrize("kind", [Adapted, lambda *sizes: nn.Sequential(nn.Linear(*sizes))])
    def test_padding_under_a_replaced_projection(self, kind):
        block = make_block()
        block.attn.qkv = kind(16, 48)
        published = copy.deepcopy(block)
        published.__class__ = PublishedBlock
        for x in (image_map(), clip_map()):
            assert_same(block(x), published(x))

    def test_a_map_of_other_channels_fails_as_it_always_did(self):
        for module in (make_block(), make_downsample()):
            for context in (torch.no_grad(), contextlib.nullcontext()):
                with context, pytest.raises(RuntimeError, match=r"normalized_shape=\[16\]"):
                    module(torch.randn(1, 7, 5, 32))


class TestStateAndGraphs:
    """Copies, files and compiled graphs."""

    @staticmethod
    def copies(module):
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        yield copy.deepcopy(module)
        yield pickle.loads(pickle.dumps(module))
        yield torch.load(file, weights_only=False)

    @torch.no_grad()
    def test_copies_are_equal_and_fused(self):
        model, images = make_backbone(), torch.randn(1, 3, 40, 36)
        keys = list(model.state_dict())
        expected = model(images)
        for other in self.copies(model):
            with Calls() as calls:
                outputs = other(images)
            assert len(calls.names) == 7
            assert all(torch.equal(outputs[name], x) for name, x in expected.items())
            assert list(other.state_dict()) == list(model.state_dict()) == keys

    @torch.no_grad()
    def test_new_parameters_are_seen(self):
        """Nothing is kept from one call to the next."""
        block = make_block()
        block(image_map())
        state = {name: 0.5 * p for name, p in block.state_dict().items()}
        block.load_state_dict(state)
        assert fused_calls(block, image_map()) == ["iwin_block"]
        block.norm2.weight.mul_(3)
        assert fused_calls(block, image_map()) == ["iwin_block"]
        block.mlp.fc1 = nn.Linear(16, 32)
        block.mlp.fc2 = nn.Linear(32, 16)
        assert fused_calls(block, image_map()) == ["iwin_block"]

    @torch.no_grad()
    def test_a_backbone_compiles_to_one_graph(self):
        torch.compiler.reset()
        model, images = make_backbone(), torch.randn(1, 3, 40, 36)
        graphs = CompileCounterWithBackend("aot_eager")
        outputs = torch.compile(model, fullgraph=True, backend=graphs)(images)
        names = [str(node.target) for node in graphs.graphs[0].graph.nodes]
        assert names.count("iwin_d2.iwin_block.default") == 4
        assert names.count("iwin_d2.downsample.default") == 3
        for name, x in model(images).items():
            assert_same(outputs[name], x)

    @torch.no_grad()
    def test_one_graph_for_all_sizes(self):
        torch.compiler.reset()
        module = nn.Sequential(make_block(), make_downsample())
        graphs = CompileCounterWithBackend("aot_eager")
        compiled = torch.compile(module, fullgraph=True, backend=graphs, dynamic=True)
        counts = []
        for size in ((7, 5), (4, 9), (10, 11)):
            x = torch.randn(2, *size, 16)
            assert_same(compiled(x), module(x))
            counts.append(graphs.frame_count)
        assert counts[0] == counts[-1]
        names = [str(node.target) for node in graphs.graphs[-1].graph.nodes]
        assert {"iwin_d2.iwin_block.default", "iwin_d2.downsample.default"} <= {*names}

    def test_gradients_compile_to_the_parts(self):
        """The same module, compiled for both: a guard tells them apart."""
        torch.compiler.reset()
        block, x = make_block(), image_map()
        graphs = CompileCounterWithBackend("aot_eager")
        compiled = torch.compile(block, fullgraph=True, backend=graphs)
        for context in (torch.no_grad(), contextlib.nullcontext(), torch.no_grad()):
            with context:
                assert_same(compiled(x), block(x))
        fused = ["iwin_block" in str(list(graph.graph.nodes)) for graph in graphs.graphs]
        assert fused == [True, False]

    @torch.no_grad()
    def test_hooks_compile_to_the_parts(self):
        torch.compiler.reset()
        block, x = make_block(), image_map()
        compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
        before = compiled(x)
        listened("mlp.fc1")(block)
        torch.compiler.reset()  # PyTorch does not guard hooks
        after = compiled(x)
        assert_same(after, block(x))
        assert not torch.allclose(after, before)

    @torch.no_grad()
    def test_shapes_alone(self):
        with FakeTensorMode():
            model = make_backbone()
            shapes = {name: x.shape for name, x in model(torch.empty(2, 3, 40, 36)).items()}
        with torch.device("meta"):
            model = make_backbone()
            assert shapes == {n: x.shape for n, x in model(torch.empty(2, 3, 40, 36)).items()}
        assert shapes["res5"] == (2, 128, 2, 2)


@torch.no_grad()
def test_what_a_block_computes():
    """Both against the definition, in float64 (section 3.2)."""
    block, x = make_block(), image_map()
    exact = copy.deepcopy(block).double()
    y = exact.norm1(x.double())
    z = x + exact.attn(y) + exact.dwconv(y)
    z = z + exact.mlp.fc2(F.gelu(exact.mlp.fc1(exact.norm2(z))))
    torch.testing.assert_close(block(x).double(), z, rtol=1e-5, atol=1e-5)
