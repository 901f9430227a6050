"""The file of the compiled operators is loaded where it fits; otherwise one sentence says why."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from iwin_d2.ops import backends, extension

ROOT = Path(__file__).resolve().parents[2]
MARK = "iwin_d2 extension for PyTorch {}, CPU (baseline), GCC 12\0"


def fresh_process(code, **environ):
    """Run code where no extension is loaded yet; return what it prints."""
    clean = {k: v for k, v in os.environ.items() if k not in ("IWIN_D2_EXTENSION", "LD_PRELOAD")}
    clean.pop("IWIN_D2_ATTENTION", None)
    result = subprocess.run(
        [sys.executable, "-c", code], env={**clean, **environ}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_a_file_that_does_not_fit_is_not_loaded(tmp_path):
    """All in one process, since importing PyTorch is what takes the time."""
    release, _, local = torch.__version__.partition("+")
    major, minor, _ = release.split(".", 2)
    files = {
        "absent": None,
        "empty": "",
        "older": MARK.format(f"{major}.{int(minor) - 1}.0"),
        "damaged": MARK.format(f"{major}.{minor}.99+{local}"),
    }
    for name, text in files.items():
        if text is not None:
            (tmp_path / name).write_text(text)
    code = (
        "import sys; sys.modules['iwin_d2.ops'] = type(sys)('iwin_d2.ops')\n"
        f"sys.modules['iwin_d2.ops'].__path__ = [{os.path.dirname(extension.__file__)!r}]\n"
        "from iwin_d2.ops import extension\n"
        "print(extension.loaded(), extension.reason())\n"
        f"for name in {list(files)}:\n"
        f"    print(extension._load({str(tmp_path)!r} + '/' + name))\n"
    )
    before, absent, empty, older, damaged = fresh_process(code)
    assert before == "False the extension has not been looked for yet"
    assert absent.startswith(f"the compiled operators are not built (no {tmp_path}/absent): `make")
    assert empty.startswith(f"{tmp_path}/empty does not hold the compiled operators: `make build`")
    wanted = f"built for PyTorch {major}.{int(minor) - 1}.0 and this is {torch.__version__}: `make"
    assert wanted in older
    assert damaged.startswith(f"{tmp_path}/damaged cannot be loaded ({tmp_path}/damaged: ")


def test_the_package_works_without_the_file_that_is_asked_for(tmp_path):
    code = (
        "import torch, iwin_d2.ops as ops\n"
        "print(ops.extension.describe_extension())\n"
        "print(ops.extension.loaded())\n"
        "print(ops.interleaved_window_partition(torch.ones(1, 4, 4, 2), 2).shape)\n"
    )
    described, loaded, shape = fresh_process(code, IWIN_D2_EXTENSION=str(tmp_path / "absent.so"))
    assert described == (
        f"operators: plain PyTorch; IWIN_D2_EXTENSION names {tmp_path}/absent.so, "
        "and there is no such file"
    )
    assert (loaded, shape) == ("False", "torch.Size([4, 4, 2])")


@pytest.mark.skipif(not extension.loaded(), reason=extension.reason())
def test_what_is_loaded_says_what_it_is(monkeypatch):
    info = torch.ops.iwin_d2.build_info()
    assert info.startswith(f"iwin_d2 extension for PyTorch {torch.__version__.split('.')[0]}.")
    assert info.encode() in Path(extension.file_path()).read_bytes()
    capability = torch.ops.iwin_d2.cpu_capability()
    assert capability in ("avx512", "avx2", "baseline")
    assert extension.describe_extension().endswith(f"; using {capability}")
    assert extension.reason() == ""
    # A second file would register everything twice: it is not even looked at.
    monkeypatch.setenv("IWIN_D2_EXTENSION", "/no/such/file")
    extension.load()
    assert extension._load("/no/such/file") == ""


@pytest.mark.skipif(not os.path.isfile(extension.file_path()), reason="nothing is compiled")
def test_python_and_cpp_mean_the_same_operators():
    digest = extension._digest_operators()
    assert digest == extension._OPERATORS, (
        f"the extension is older than its sources: make build; or operators have changed: "
        f"{digest} is what extension.py should expect"
    )


def test_operators_of_another_version_are_not_used(monkeypatch):
    monkeypatch.setattr(extension, "_OPERATORS", "another")
    if not extension.loaded():
        pytest.skip(extension.reason())
    reason = extension._load("/some/file")
    assert reason.startswith("/some/file holds the operators of another version of this package: ")


def own_build():
    """What setup.py builds on this machine; skip where the extension is not its work."""
    if Path(sys.prefix).resolve() != ROOT / ".venv" or os.environ.get("IWIN_D2_EXTENSION"):
        pytest.skip("the extension is not the one that `make` keeps")
    spec = importlib.util.spec_from_file_location("build_script", ROOT / "setup.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.decide(script.requested(), script.survey())


def test_where_there_is_a_toolkit_there_are_kernels_for_cuda():
    """Whether there is a GPU or not."""
    kind, reason = own_build()
    if kind != "cuda":
        pytest.skip(reason)
    assert extension.loaded(), extension.reason()
    on_cuda = [name for name, (_, dtypes) in backends.OPERATORS.items() if "cuda" in dtypes]
    backward = ["attention_backward", "depthwise_conv_backward", "bias_gelu_backward"]
    for name in on_cuda + backward:
        operator = getattr(torch.ops.iwin_d2, name).default
        assert operator.has_kernel_for_dispatch_key(torch.DispatchKey.CUDA), name
    assert re.search(r"and CUDA \d+\.\d \(sm_80 sm_90 compute_90\)", torch.ops.iwin_d2.build_info())


def test_compiling_warned_of_nothing():
    own_build()
    log = ROOT / ".venv/operators.log"
    if not log.is_file():
        pytest.skip("nothing has been compiled")
    warnings = re.findall(r"^.*(?:csrc/|ptxas|nvcc|nvlink).*\bwarning\b.*$", log.read_text(), re.M)
    assert not [line for line in warnings if " -c " not in line]


@pytest.mark.skipif(not extension.loaded(), reason=extension.reason())
def test_loading_does_not_start_cuda():
    """Not even its driver: a process that has no use for the GPU leaves it alone."""
    if "AddressSanitizer" in torch.ops.iwin_d2.build_info():
        pytest.skip("a fresh process would need the sanitizer's libraries")
    code = (
        "import torch, iwin_d2.ops\n"
        "print(iwin_d2.ops.extension.loaded(), torch.cuda.is_initialized())\n"
        "print('libcuda.so' in open('/proc/self/maps').read())\n"
    )
    loaded, driver = fresh_process(code, IWIN_D2_EXTENSION=extension.file_path())
    assert (loaded, driver) == ("True False", "False")
