"""setup.py builds what IWIN_D2_BUILD asks for, or says in one sentence why it does not."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
VARIABLES = ("IWIN_D2_BUILD", "IWIN_D2_EXTENSION", "CXX", "CXXFLAGS", "LDFLAGS", "MAX_JOBS")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("build_script", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def machine(**missing):
    """A machine that can build everything, but for what is given."""
    everything = {
        "compiler": "c++",
        "toolkit": Path("/cuda"),
        "toolkit_version": (13, 0),
        "cuda_sources": ["csrc/cuda/op_kernel.cu"],
        "torch": "2.11.0",
        "torch_cuda": "13.0",
        "torch_error": "it is not installed",
    }
    return SimpleNamespace(**{**everything, **missing})


MISSING = [
    ({"torch": None}, "none", r"PyTorch cannot be imported .*--no-build-isolation"),
    ({"compiler": None}, "none", r"no C\+\+ compiler.*g\+\+"),
    ({"cuda_sources": []}, "cpu", "no CUDA operators"),
    ({"torch_cuda": None}, "cpu", r"PyTorch 2\.11\.0 is built without CUDA"),
    (
        {"toolkit": None, "toolkit_version": None},
        "cpu",
        "no CUDA toolkit with bin/nvcc and include/cuda_runtime.h in CUDA_HOME",
    ),
    ({"toolkit_version": (12, 4)}, "cpu", r"/cuda is CUDA 12\.4 and PyTorch is built for 13\.0"),
]


@pytest.mark.parametrize(("missing", "kind", "reason"), MISSING)
def test_auto_builds_what_the_machine_allows(script, missing, kind, reason):
    built, why = script.decide("auto", machine(**missing))
    assert built == kind
    assert re.search(reason, why)


@pytest.mark.parametrize(("missing", "kind", "reason"), MISSING)
def test_what_is_asked_for_and_out_of_reach_is_an_error(script, missing, kind, reason):
    with pytest.raises(script.BuildError, match=f"IWIN_D2_BUILD=cuda is out of reach: .*{reason}"):
        script.decide("cuda", machine(**missing))
    if kind == "none":
        with pytest.raises(script.BuildError, match=f"=cpu is out of reach: .*{reason}"):
            script.decide("cpu", machine(**missing))
    else:
        assert script.decide("cpu", machine(**missing)) == ("cpu", None)


def test_a_machine_that_lacks_nothing(script):
    assert script.decide("auto", machine()) == ("cuda", None)
    assert script.decide("cuda", machine()) == ("cuda", None)
    assert script.decide("cpu", machine()) == ("cpu", None)
    assert script.decide("none", None) == ("none", "IWIN_D2_BUILD=none")


def test_the_request(script):
    assert script.requested({}) == script.requested({"IWIN_D2_BUILD": ""}) == "auto"
    assert script.requested({"IWIN_D2_BUILD": "none"}) == "none"
    with pytest.raises(script.BuildError, match=r"IWIN_D2_BUILD='gpu' .* auto, cpu, cuda, none\."):
        script.requested({"IWIN_D2_BUILD": "gpu"})


def compiler(path, *macros):
    path.write_text("#!/bin/sh\n" + "".join(f"echo '#define {name} 12'\n" for name in macros))
    path.chmod(0o755)


def test_the_compiler(script, tmp_path):
    path = {"PATH": str(tmp_path)}
    assert script.find_compiler(path) is None
    compiler(tmp_path / "c++", "__GNUC__", "__clang__")  # as Clang does
    assert script.find_compiler(path) is None
    compiler(tmp_path / "g++", "__GNUC__")
    assert script.find_compiler(path) == "g++"
    compiler(tmp_path / "c++", "__GNUC__")
    assert script.find_compiler(path) == "c++"
    # Named by hand, nothing else will do.
    assert script.find_compiler({**path, "CXX": "g++-13"}) is None
    assert script.find_compiler({**path, "CXX": " "}) is None
    compiler(tmp_path / "g++-13", "__GNUC__")
    assert script.find_compiler({**path, "CXX": "g++-13 -pipe"}) == "g++-13 -pipe"


def test_the_toolkit_is_where_its_compiler_and_header_are(script, tmp_path):
    # Such as the folder above an nvcc that is only a wrapper.
    wrapper, toolkit, default = tmp_path / "wrapper", tmp_path / "toolkit", tmp_path / "default"
    (wrapper / "bin").mkdir(parents=True)
    environ = {"CUDA_HOME": str(wrapper), "CUDA_PATH": str(toolkit)}
    assert script.find_toolkit(environ, str(default)) is None
    for folder in (default, toolkit):
        for name in ("bin/nvcc", "include/cuda_runtime.h"):
            assert script.find_toolkit(environ, str(default)) != folder
            (folder / name).parent.mkdir(parents=True)
            (folder / name).touch()
        assert script.find_toolkit(environ, str(default)) == folder
    (toolkit / "include/cuda.h").write_text("// x\n#define  CUDA_VERSION 12040\n")
    assert script.toolkit_version(toolkit) == (12, 4)


def test_the_sources(script):
    found = script.sources("*.cpp", "cpu/*.cpp")
    assert found == sorted(found)
    assert {"csrc/build_info.cpp", "csrc/cpu/isa.cpp"} <= set(found)
    for path in found:
        assert "Python.h" not in (ROOT / path).read_text(), "one file serves every Python"


def clean_environment():
    return {name: value for name, value in os.environ.items() if name not in VARIABLES}


def run_script(*arguments, folder=ROOT, **environ):
    """Run setup.py; return exit status and output."""
    result = subprocess.run(
        [sys.executable, "setup.py", *arguments],
        cwd=folder,
        env={**clean_environment(), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return result.returncode, result.stdout


def test_a_wrong_request_ends_in_one_sentence():
    status, output = run_script("--version", IWIN_D2_BUILD="gpu")
    assert status == 1
    assert output == (
        "error: IWIN_D2_BUILD='gpu' is not known: write one of auto, cpu, cuda, none.\n"
    )


def test_without_pytorch_the_package_is_pure_python(tmp_path):
    # As in pip's isolated build.
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('no torch', name='torch')\n")
    environ = {"PYTHONPATH": str(tmp_path)}
    command = ("--quiet", "build_ext", "--build-lib", str(tmp_path / "lib"))
    status, output = run_script(*command, **environ)
    assert status == 0
    assert "iwin_d2: no compiled operators, plain PyTorch instead: PyTorch cannot" in output
    assert not (tmp_path / "lib").exists()
    status, output = run_script(*command, **environ, IWIN_D2_BUILD="cpu")
    assert status == 1
    assert "error: IWIN_D2_BUILD=cpu is out of reach: PyTorch cannot be imported" in output


# Enough of csrc/ to be loaded, and soon compiled.
SMALL = ("csrc/build_info.cpp", "csrc/cpu/isa.cpp", "csrc/cpu/isa.h")


def copy_tree(folder, sources=None):
    """Copy what setup.py reads, of csrc/ these files or all, and build it in place."""
    if shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    for name in ("setup.py", "pyproject.toml", "README.md", *(sources or ())):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in ("iwin_d2",) if sources else ("iwin_d2", "csrc"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__")
        )
    status, output = run_script("build_ext", "--inplace", folder=folder, IWIN_D2_BUILD="cpu")
    assert status == 0, output
    assert "iwin_d2: the operators are compiled for the CPU.\n" in output
    assert not re.search(r"csrc/\S+: warning: .*", output)
    return folder


@pytest.fixture(scope="module")
def small_tree(tmp_path_factory):
    return copy_tree(tmp_path_factory.mktemp("tree"), SMALL)


def loaded_from(folder):
    """What a fresh process says that it has loaded in a tree: the file, and what it is."""
    code = (
        "from iwin_d2.ops import extension\n"
        "print(extension.file_path())\n"
        "print(extension.describe_extension())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return result.stdout.splitlines()


@pytest.mark.slow
def test_a_build_in_place(tmp_path):
    tree = copy_tree(tmp_path)
    path, described = loaded_from(tree)
    assert path == str(tree / "iwin_d2/_C.abi3.so")
    assert described.startswith(f"operators: compiled for PyTorch {torch.__version__}, CPU (")
    # It takes the OpenMP library that PyTorch has loaded: a second one has its own threads.
    needed = subprocess.run(["ldd", tree / "iwin_d2/_C.abi3.so"], capture_output=True, text=True)
    assert "libtorch_cpu" in needed.stdout
    assert not re.search(r"lib(gomp|omp|iomp5)[^ ]* => /(usr/)?lib", needed.stdout)


@pytest.mark.slow
def test_only_what_changed_is_compiled(small_tree):
    path = os.pathsep.join([os.environ["PATH"], os.path.dirname(sys.executable)])
    if shutil.which("ninja", path=path) is None:
        pytest.skip("needs ninja")
    (small_tree / "csrc/cpu/isa.h").touch()
    status, output = run_script("build_ext", "--inplace", folder=small_tree)
    assert status == 0
    assert "csrc/cpu/isa.cpp" in output
    assert "csrc/build_info.cpp" not in output
    status, output = run_script("build_ext", "--inplace", folder=small_tree)
    assert "no work to do" in output


@pytest.mark.slow
def test_a_build_that_fails(small_tree):
    broken = small_tree / "csrc/build_info.cpp"
    text = broken.read_text()
    broken.write_text(text + "int f( {\n")
    status, output = run_script("build_ext", "--inplace", folder=small_tree)
    assert status == 0
    assert "iwin_d2: no compiled operators, plain PyTorch instead: compiling csrc/ fail" in output
    status, output = run_script("build_ext", "--inplace", folder=small_tree, IWIN_D2_BUILD="cpu")
    assert status == 1
    assert re.search(r"^error: compiling csrc/ failed \(.*\)\.$", output, re.MULTILINE)
    broken.write_text(text)


def toolkit_that_fails(folder):
    """A CUDA toolkit for this PyTorch, whose compiler takes no code."""
    major, minor = torch.version.cuda.split(".")[:2]
    (folder / "include").mkdir(parents=True)
    (folder / "include/cuda_runtime.h").touch()
    (folder / "include/cuda.h").write_text(f"#define CUDA_VERSION {major}0{minor}0\n")
    (folder / "bin").mkdir()
    version = f"release {major}.{minor}, V1"
    (folder / "bin/nvcc").write_text(
        f'#!/bin/sh\ncase "$*" in *--version*) echo "{version}" ;; *) exit 1 ;; esac\n'
    )
    (folder / "bin/nvcc").chmod(0o755)
    return folder


@pytest.mark.slow
def test_without_a_cuda_compiler_that_works_there_are_the_operators_of_the_cpu(
    small_tree, tmp_path
):
    if torch.version.cuda is None:
        pytest.skip("needs a PyTorch that is built with CUDA")
    environ = {"CUDA_HOME": str(toolkit_that_fails(tmp_path / "cuda"))}
    kernel = small_tree / "csrc/cuda/op_kernel.cu"
    kernel.parent.mkdir()
    kernel.write_text("void f();\n")
    try:
        command = ("build_ext", "--inplace")
        status, output = run_script(*command, folder=small_tree, **environ, IWIN_D2_BUILD="cuda")
        assert status == 1
        assert re.search(r"^error: compiling csrc/ failed \(.*\)\.$", output, re.MULTILINE)
        (small_tree / "iwin_d2/_C.abi3.so").unlink()
        status, output = run_script(*command, folder=small_tree, **environ)
        assert status == 0
        said = "the operators are compiled for the CPU, not for CUDA: compiling csrc/ failed"
        assert f"iwin_d2: {said}" in output
        assert (small_tree / "iwin_d2/_C.abi3.so").is_file()
    finally:
        shutil.rmtree(kernel.parent)
