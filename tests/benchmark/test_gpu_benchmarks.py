"""What is measured on a GPU, on one that is made up: same code, the processor's tensors."""

import gc
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.autograd import DeviceType

from iwin_d2.benchmark import backbone, gpu_profile, groups, ops, steps, video
from iwin_d2.benchmark.models import OURS, PUBLISHED, Goals
from iwin_d2.benchmark.published import use_published_blocks
from iwin_d2.benchmark.target import CPU, Gpu, find_target
from iwin_d2.errors import ConfigError
from iwin_d2.modeling import IwinTransformer

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")

CASE = ops.Case((2, 8, 11), num_heads=3, head_dim=16, window_size=3)


def _fail(*args):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nMore lines.")


@pytest.fixture(autouse=True)
def without_looking_for_cycles(monkeypatch):
    monkeypatch.setattr(gc, "collect", lambda: 0)  # takes long where many modules are imported


def cells(lines):
    """The rows of a table by their names, each a list of cells."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    return {row[0]: row[1:] for row in rows}


class TestTarget:
    """Clock and memory of a device."""

    def test_a_run_is_timed_when_all_are_in_the_queue(self, gpu, monkeypatch):
        slept = []
        monkeypatch.setattr(torch.cuda, "_sleep", slept.append)
        runs = []
        # Two events in a row, a millisecond, five runs.
        assert gpu.seconds(lambda: runs.append(0)) == pytest.approx(1e-3 / 5)
        assert len(runs) == 5 and slept == [10**7]
        # The device had slept out before all were in its queue: a second, longer sleep.
        monkeypatch.setattr(torch.cuda.Event, "query", lambda event: True)
        gpu.seconds(lambda: runs.append(0))
        assert len(runs) == 15 and slept[1:] == [10**7, 10**8]

    def test_a_step_is_timed_until_the_device_is_done(self, gpu, monkeypatch):
        done = []
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("synchronized"))
        assert 0 <= gpu.step_seconds(lambda: done.append("run")) < 10
        assert done == ["synchronized", "run", "synchronized"]

    def test_peak_memory(self, gpu):
        runs = []
        assert gpu.peak_memory(lambda: runs.append(0)) == 10 - 3
        assert len(runs) == 2

    def test_tensors_and_autocast(self):
        assert CPU.random(2, 3).dtype == torch.float32
        target = Gpu(device="cpu", dtype=torch.bfloat16)
        assert target.random(2, 3).dtype == torch.bfloat16
        layer, x = nn.Linear(2, 3), torch.ones(1, 2)
        with target.autocast():
            assert layer(x).dtype == torch.bfloat16
        with CPU.autocast():
            assert layer(x).dtype == torch.float32

    def test_names(self, monkeypatch):
        assert find_target("cpu") == CPU
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert find_target("cuda") == Gpu("cuda", torch.bfloat16)
        assert find_target("cuda", "float32") == Gpu("cuda", torch.float32)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ConfigError, match="no CUDA device here"):
            find_target("cuda")


class TestOps:
    """The attention core."""

    @pytest.mark.parametrize("backward", [False, True])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_alternatives_agree(self, gpu, dtype, backward):
        target = Gpu(device="cpu", dtype=dtype)
        results = [
            ops.build(name, CASE, backward, target)() for name in (OURS, PUBLISHED, ops.SDPA)
        ]
        for result in results:
            for value, ours in zip(result, results[0]):
                assert value.dtype == dtype
                torch.testing.assert_close(value, ours, rtol=5e-2, atol=5e-2)

    def test_the_tables(self, gpu, monkeypatch):
        goals = {OURS: "at least 60 %", PUBLISHED: "at least 4"}
        monkeypatch.setattr(ops, "ON_GPU", ((CASE, False, goals), (CASE, True, {})))
        monkeypatch.setitem(ops.ALTERNATIVES, ops.FLEX, _fail)
        lines = list(ops.benchmark_ops(1, gpu))
        tables = "\n".join(lines).split("### ")[1:]
        assert [part.partition("\n")[0] for part in tables] == [
            "attention core, 2x8x11, 3 heads of 16, window 3, forward",
            "attention core, 2x8x11, 3 heads of 16, window 3, forward + backward",
        ]
        forward = cells(tables[0].splitlines())
        assert forward[""] == ["median ms", "time / ours", "of the rate of copies", "peak MiB"]
        # A millisecond for five runs; for as many times four copies of 4096 bytes, there and back.
        share = 100 * (4 * 48 * 2 * 8 * 11 * 2) / (4 * 2 * 4096)
        assert forward[OURS] == ["0.200", "1.00", f"{share:.0f} % (at least 60 %)", "7"]
        assert forward[PUBLISHED] == ["0.200", "1.00 (at least 4)", f"{share:.0f} %", "7"]
        assert forward[ops.FLEX][:2] == [
            "does not run",
            "CUDA out of memory. Tried to allocate 20 GiB.",
        ]
        floors = [name for name in forward if name.startswith("floor: ")]
        assert len(floors) == 2 and all(len(forward[name]) == 4 for name in floors)

    def test_without_ours_there_is_no_table(self, gpu, monkeypatch):
        monkeypatch.setattr(ops, "ALTERNATIVES", {OURS: _fail, PUBLISHED: _fail})
        with pytest.raises(RuntimeError, match="does not run: CUDA out of memory"):
            ops.compare(CASE, False, {}, 1, gpu)

    def test_the_sizes_of_the_bars(self):
        assert ops.CORES.describe() == "attention core, 8x200x304, 3 heads of 32, window 7"
        assert ops.CLIPS.size == (8, 16, 56, 56)
        assert ops.CORES.bytes_moved(torch.bfloat16) == 2 * 8 * 200 * 304 * (288 + 96)


class TestSteps:
    """Models."""

    @pytest.mark.parametrize("name", backbone.TRAINED)
    def test_a_training_step_of_a_backbone(self, gpu, name):
        step = steps.build(backbone.TRAINED[name], (2, 3, 64, 64), gpu)
        before = [p.detach().clone() for p in step.optimizer.param_groups[0]["params"]]
        step()
        step()
        after = step.optimizer.param_groups[0]["params"]
        changed = [not torch.equal(x, y) for x, y in zip(before, after)]
        # A row of stochastic depth may have dropped out both times.
        assert sum(changed) > 0.5 * len(changed)
        assert all(p.grad is None for p in after)
        assert all(x.isfinite().all() for x in after)

    def test_parameters_and_their_gradients_stay_float32(self, gpu):
        step = steps.build(_linear, (5, 100), gpu)
        step.optimizer.zero_grad = lambda set_to_none: None  # keeps the gradients
        step()
        assert step.grads[0].dtype == torch.bfloat16  # of the result
        for p in step.optimizer.param_groups[0]["params"]:
            assert p.dtype == p.grad.dtype == torch.float32

    @pytest.mark.parametrize("training", [False, True])
    def test_the_table(self, gpu, training):
        models = {OURS: _linear, PUBLISHED: _linear, "too large": _too_large}
        goals = Goals(faster={PUBLISHED: "at least 1.3"})
        lines = steps.compare("linear", models, (5, 100), goals, 1, gpu, training)
        rows = cells(lines)
        assert rows[""] == ["median ms", "a second", "time / ours", "of the GEMM rate", "peak MiB"]
        assert rows[OURS][2] == "1.00" and rows[OURS][4] == "7"
        assert rows[PUBLISHED][2].endswith(" (at least 1.3)")
        milliseconds, rate = float(rows[OURS][0]), float(rows[OURS][1])
        assert rate == pytest.approx(5000 / milliseconds, rel=0.3, abs=1)
        assert rows["too large"][0] == "does not run" and "out of memory" in rows["too large"][2]

    def test_compiled_models(self, gpu, monkeypatch):
        compiled = []

        def compile_it(model, dynamic):
            compiled.append(model)
            return model

        monkeypatch.setattr(torch, "compile", compile_it)
        models = {OURS: _linear, PUBLISHED: _linear}
        steps.compare("linear", models, (5, 100), Goals(), 1, gpu, compile_them=True)
        assert [type(model) for model in compiled] == [nn.Linear, nn.Linear]

    def test_the_backbones_tables(self, gpu, monkeypatch):
        asked = []

        def compare(title, models, shape, goals, rounds, target, training=True, compile_them=False):
            asked.append((title, list(models), shape, goals.faster, training, compile_them))
            return [title]

        monkeypatch.setattr(steps, "compare", compare)
        titles = [*backbone.benchmark_backbone(1, gpu), *video.benchmark_video(1, gpu)]
        assert titles == [found[0] for found in asked]
        by_bar = {value: found for found in asked for value in found[3].items()}
        swin = by_bar[backbone.SWIN, "at least 1.3"]
        assert swin[1:3] == ([OURS, backbone.SWIN], (64, 3, 224, 224)) and swin[4:] == (True, True)
        clips = by_bar[PUBLISHED, "at least 2"]
        assert clips[2] == (8, 3, 32, 224, 224) and clips[4:] == (True, False)


class TestProfile:
    """By operator and by kernel."""

    @staticmethod
    def operator(name, kernels, parent=None, shapes=()):
        return SimpleNamespace(
            name=name,
            device_type=DeviceType.CPU,
            self_device_time_total=sum(kernels),
            cpu_parent=parent,
            input_shapes=shapes,
        )

    @staticmethod
    def kernel(name, start, end):
        span = SimpleNamespace(start=start, end=end, elapsed_us=lambda: end - start)
        return SimpleNamespace(name=name, device_type=DeviceType.CUDA, time_range=span)

    def events(self):
        attention = self.operator("iwin_d2::attention", [5e5])
        weights = ([8, 96, 7, 7], [96, 1, 3, 3])
        return [
            attention,
            self.operator("aten::empty", [], attention),
            self.operator("aten::something", [2e5], attention),
            self.operator("aten::cudnn_convolution", [1e5], None, weights),
            self.operator("aten::cudnn_convolution", [3e5], None, ([8, 3, 7, 7], [96, 3, 4, 4])),
            self.operator("aten::cudnn_convolution", [1e5], None, ([], [])),
            self.operator("aten::unheard_of", [4e5]),
            self.kernel("one | two", 1e6, 1.5e6),
            self.kernel("three", 1.7e6, 2e6),
            self.kernel("one | two", 1.4e6, 1.6e6),
        ]

    def test_seconds_by_group(self):
        assert gpu_profile.seconds_by_group(self.events()) == {
            "attention": pytest.approx(0.7),
            groups.DEPTHWISE: 0.1,
            "matrix products, dense convolutions": 0.4,
            gpu_profile.OTHER: 0.4,
        }

    def test_kernels_and_the_time_between_them(self):
        assert gpu_profile.seconds_by_kernel(self.events()) == {
            "one | two": (2, pytest.approx(0.7)),
            "three": (1, pytest.approx(0.3)),
        }
        assert gpu_profile.idle_seconds(self.events()) == pytest.approx(0.1)
        assert gpu_profile.idle_seconds([]) == 0

    def test_the_tables(self, gpu, monkeypatch):
        monkeypatch.setattr(steps, "build", lambda make, shape, target: make())
        runs = []
        made = {name: lambda: lambda: runs.append(0) for name in (PUBLISHED, "swin", OURS)}
        monkeypatch.setattr(backbone, "TRAINED", made)
        monkeypatch.setattr(video, "MODELS", made)
        profiled = []

        def profile(run, rounds):
            run()
            profiled.append(rounds)
            return self.events()

        monkeypatch.setattr(gpu_profile, "_profile", profile)
        tables = "\n".join(gpu_profile.profile_training(2, gpu)).split("### ")[1:]
        assert len(tables) == 4 and profiled == [2] * 6 and len(runs) == 6
        by_group = cells(tables[0].splitlines())
        assert by_group[""][:3] == ["ours, ms", "share", "published formulation, ms"]
        assert by_group["attention"][:2] == ["350.00", "41 %"]
        assert list(by_group)[-1] == gpu_profile.IDLE
        kernels = cells(tables[1].splitlines())
        assert kernels["`one / two`"] == ["1", "350.000", "70.0 %"]

        monkeypatch.setattr(gpu_profile, "_profile", lambda run, rounds: self.events()[:3])
        lines = list(gpu_profile.profile_training(1, gpu))
        assert len(lines) == 2 and all("sees no kernels on this machine" in x for x in lines)

    @pytest.mark.filterwarnings("ignore:CUDA is not available")
    def test_nothing_is_left_of_a_step_without_kernels(self, gpu):
        step = steps.build(_tiny, (1, 3, 64, 64), gpu)
        events = gpu_profile._profile(step, rounds=1, warmup=1)
        names = {event.name for event in events}
        assert "aten::_fused_adamw_" in names and not any("Optimizer.step" in x for x in names)
        assert not gpu_profile.seconds_by_group(events)
        assert not gpu_profile.seconds_by_kernel(events)


def _tiny() -> nn.Module:
    return IwinTransformer(embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])


def _linear() -> nn.Module:
    return nn.Linear(100, 20)


def _too_large() -> nn.Module:
    model = nn.Linear(100, 20)
    model.forward = _fail
    return model


def test_the_published_formulation_trains_as_ours(gpu):
    """The gradients of one step, without what drops out at random."""
    made = {OURS: _tiny, PUBLISHED: lambda: use_published_blocks(_tiny())}
    found = []
    for make in made.values():
        step = steps.build(make, (2, 3, 64, 64), Gpu(device="cpu", dtype=torch.float32))
        step.optimizer.zero_grad = lambda set_to_none: None
        step.optimizer.step = lambda: None
        torch.manual_seed(1)  # of the maps' gradients
        step()
        found.append([p.grad for p in step.optimizer.param_groups[0]["params"]])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * b.abs().max().item())
