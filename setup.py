"""Builds csrc/ into iwin_d2/_C.abi3.so; the metadata is in pyproject.toml.

The package works without that file, on its plain-PyTorch reference. IWIN_D2_BUILD says what to do:

    auto   what this machine allows (the default): where CUDA's operators do not compile, the
           CPU's; where nothing can be built, install without
    cpu    the CPU operators; an error where they cannot be built
    cuda   the CPU and CUDA operators; an error where they cannot be built
    none   nothing

CXX names the compiler, a GCC; CXXFLAGS and LDFLAGS come after the flags below.
"""

import contextlib
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
CHOICES = ("auto", "cpu", "cuda", "none")
COMPILERS = ("c++", "g++")
# torch.ops.load_library loads the file, not Python's import: it has no use of Python's ABI.
FILE_NAME = "_C.abi3.so"
# What a toolkit is known by: some hold no compiler.
TOOLKIT = ("bin/nvcc", "include/cuda_runtime.h")
# What nvcc compiles for. The last is PTX, from which the driver makes code for what comes later.
ARCHITECTURES = (
    ("compute_80", "sm_80"),
    ("compute_90", "sm_90"),
    ("compute_90", "compute_90"),
)
# How the outcome is told; tools/setup_venv.py reads these lines.
BUILT = "the operators are compiled"
WITHOUT = "no compiled operators, plain PyTorch instead"


class BuildError(Exception):
    """Why the operators cannot be built, in one sentence."""


def requested(environ=os.environ):
    """Return what IWIN_D2_BUILD asks for."""
    value = environ.get("IWIN_D2_BUILD") or "auto"
    if value not in CHOICES:
        raise BuildError(
            f"IWIN_D2_BUILD={value!r} is not known: write one of {', '.join(CHOICES)}."
        )
    return value


def find_compiler(environ=os.environ):
    """Return the command of the first C++ compiler that is a GCC, or None."""
    names = [environ["CXX"]] if environ.get("CXX") else COMPILERS
    return next((name for name in names if is_gcc(shlex.split(name), environ)), None)


def is_gcc(command, environ):
    """Whether a command is there and compiles as GCC does.

    Clang compiles csrc/ as well, but for its own OpenMP library: a second set of threads beside
    PyTorch's, that torch.set_num_threads does not reach.
    """
    path = command and shutil.which(command[0], path=environ.get("PATH"))
    if not path:
        return False
    macros = subprocess.run(
        [path, *command[1:], "-dM", "-E", "-x", "c++", os.devnull],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ).stdout
    return "__GNUC__" in macros and "__clang__" not in macros


def find_toolkit(environ=os.environ, default="/usr/local/cuda"):
    """Return the folder of the CUDA toolkit, or None.

    PyTorch would take the folder above the nvcc on the PATH, which may be a wrapper.
    """
    for folder in (environ.get("CUDA_HOME"), environ.get("CUDA_PATH"), default):
        if folder and all((Path(folder) / name).is_file() for name in TOOLKIT):
            return Path(folder)
    return None


def toolkit_version(toolkit):
    """Return the version of a CUDA toolkit as a pair of numbers, from its header."""
    header = (toolkit / "include" / "cuda.h").read_text(errors="replace")
    number = int(re.search(r"#define\s+CUDA_VERSION\s+(\d+)", header).group(1))
    return number // 1000, number % 1000 // 10


def survey(environ=os.environ):
    """Return what the choice depends on: PyTorch, the compiler, the CUDA toolkit and sources."""
    toolkit = find_toolkit(environ)
    found = SimpleNamespace(
        compiler=find_compiler(environ),
        toolkit=toolkit,
        toolkit_version=toolkit and toolkit_version(toolkit),
        cuda_sources=sources("cuda/*.cu"),
        torch=None,
        torch_cuda=None,
        torch_error="it is not installed",
    )
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            found.torch_error = str(error)
    except Exception as error:
        found.torch_error = str(error)
    else:
        found.torch = torch.__version__
        found.torch_cuda = torch.version.cuda
    return found


def sources(*patterns):
    """Return the files of csrc that fit the patterns, relative to the root, sorted."""
    csrc = ROOT / "csrc"
    found = [path for pattern in patterns for path in csrc.glob(pattern)]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def why_no_cpu(found):
    """Return why the CPU operators cannot be built, or None."""
    if found.torch is None:
        return (
            f"PyTorch cannot be imported here ({found.torch_error}): install it first, and then "
            "this package with pip install --no-build-isolation"
        )
    if not sys.platform.startswith("linux"):
        return "the operators have been built on Linux alone so far"
    if found.compiler is None:
        return (
            "there is no C++ compiler, or it is not GCC: install g++ (Debian: apt-get install g++) "
            "or name it in CXX"
        )
    return None


def why_no_cuda(found):
    """Return why the CUDA operators cannot be built where the CPU's can, or None."""
    if not found.cuda_sources:
        return "there are no CUDA operators in csrc/cuda"
    if found.torch_cuda is None:
        return f"PyTorch {found.torch} is built without CUDA"
    if found.toolkit is None:
        return (
            f"there is no CUDA toolkit with {' and '.join(TOOLKIT)} in CUDA_HOME, CUDA_PATH or "
            "/usr/local/cuda"
        )
    if str(found.toolkit_version[0]) != found.torch_cuda.split(".")[0]:
        version = ".".join(map(str, found.toolkit_version))
        return f"{found.toolkit} is CUDA {version} and PyTorch is built for {found.torch_cuda}"
    return None


def decide(request, found):
    """Return what to build, "none", "cpu" or "cuda", and why it is not more, or None.

    Raises a BuildError where more is asked for than this machine can do.
    """
    if request == "none":
        return "none", "IWIN_D2_BUILD=none"
    no_cpu = why_no_cpu(found)
    no_cuda = None if request == "cpu" else no_cpu or why_no_cuda(found)
    if request == "cpu" and no_cpu:
        raise BuildError(f"IWIN_D2_BUILD=cpu is out of reach: {no_cpu}.")
    if request == "cuda" and no_cuda:
        raise BuildError(f"IWIN_D2_BUILD=cuda is out of reach: {no_cuda}.")
    if no_cpu:
        return "none", no_cpu
    return ("cpu", no_cuda) if request == "cpu" or no_cuda else ("cuda", None)


def extension(kind, found):
    """Return the description of the extension: its sources and flags."""
    # Kernels are compiled where there is no GPU, too: that is nothing to be warned of.
    logging.getLogger("torch.utils.cpp_extension").addFilter(
        lambda record: "No CUDA runtime is found" not in record.getMessage()
    )
    from torch.utils.cpp_extension import include_paths, library_paths

    # PyTorch's headers are a system's: the warnings are about our own code.
    headers = [flag for path in include_paths() for flag in ("-isystem", path)]
    # Objects of another PyTorch are stale, and no compiler lists a system's headers as what a
    # file depends on: the version, as a part of the command, does it.
    defines = [f'-DIWIN_D2_TORCH_VERSION="{found.torch}"', "-DNDEBUG"]
    common = ["-std=c++17", "-O3", *defines, *headers]
    cxx = [
        *common,
        "-g0",
        # Without it at::parallel_for, a template, is a serial loop.
        "-fopenmp",
        "-fvisibility=hidden",
        "-fvisibility-inlines-hidden",
        # As PyTorch itself is built:
        "-fno-math-errno",
        "-fno-trapping-math",
        "-Wall",
        "-Wextra",
        # GCC 12 takes for it what its own intrinsics leave undefined on purpose.
        "-Wno-maybe-uninitialized",
    ]
    flags = {"cxx": cxx}
    files = sources("*.cpp", "cpu/*.cpp")
    libraries = ["c10", "torch_cpu"]
    library_dirs = library_paths()
    if kind == "cuda":
        files += found.cuda_sources
        version = ".".join(map(str, found.toolkit_version))
        built_for = " ".join(code for _, code in ARCHITECTURES)
        cxx += [f'-DIWIN_D2_WITH_CUDA="CUDA {version} ({built_for})"']
        cxx += ["-isystem", str(found.toolkit / "include")]
        libraries += ["c10_cuda", "cudart"]
        library_dirs += [str(found.toolkit / name) for name in ("lib64", "lib")]
        flags["nvcc"] = [
            *common,
            *(f"-gencode=arch={arch},code={code}" for arch, code in ARCHITECTURES),
            "--threads=0",  # the architectures side by side, where there are processors for it
            "-ccbin",
            shlex.split(found.compiler)[0],
            "-Xcompiler=-g0,-fvisibility=hidden,-fvisibility-inlines-hidden,-Wall,-Wextra",
        ]
    cxx += shlex.split(os.environ.get("CXXFLAGS", ""))
    return Extension(
        "iwin_d2._C",
        files,
        language="c++",
        extra_compile_args=flags,
        # Not -fopenmp: the OpenMP library is the one that PyTorch has loaded, not a second one.
        extra_link_args=shlex.split(os.environ.get("LDFLAGS", "")),
        libraries=libraries,
        library_dirs=library_dirs,
        py_limited_api=True,
    )


class BuildPython(build_py):
    """Takes the configs along, for iwin_d2.model_zoo to have them where there is no repository."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for pattern in ("configs/**/*.py", "projects/*/configs/**/*.py"):
            for path in sorted(ROOT.glob(pattern)):
                target = Path(self.build_lib, "iwin_d2/model_zoo", path.relative_to(ROOT))
                self.mkpath(str(target.parent))
                self.copy_file(str(path), str(target))


def build_command(request, kind, found, no_cuda):
    """Return the command build_ext: PyTorch's, with one compiler and flags of our own.

    `no_cuda` is why the kind is not "cuda", where that is asked for.
    """
    from torch.utils.cpp_extension import BuildExtension

    class BuildOperators(BuildExtension):
        def run(self):
            options = self.compiler, self.inplace  # which a build that fails leaves changed
            try:
                self.build(kind, no_cuda)
            except BuildError as error:
                if request != "auto":
                    raise SystemExit(f"error: {error}.") from None
                if kind == "cuda":
                    self.compiler, self.inplace = options
                    self.build_without_cuda(error)
                else:
                    self.give_up(error)

        def build(self, kind, no_cuda):
            """Compile and link; raise a BuildError that says why it failed."""
            try:
                with one_at_a_time(self.build_temp):
                    super().run()
            except (Exception, SystemExit) as error:
                cause = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
                raise BuildError(f"compiling csrc/ failed ({cause})") from None
            devices = "the CPU and CUDA" if kind == "cuda" else "the CPU"
            say(f"{BUILT} for {devices}" + (f", not for CUDA: {no_cuda}" if no_cuda else ""))

        def build_without_cuda(self, reason):
            of_the_cpu = extension("cpu", found)
            for name in ("sources", "extra_compile_args", "libraries", "library_dirs"):
                setattr(self.extensions[0], name, getattr(of_the_cpu, name))
            try:
                self.build("cpu", reason)
            except BuildError as error:
                self.give_up(error)

        def give_up(self, reason):
            say(f"{WITHOUT}: {reason}")
            self.extensions = []

        def finalize_options(self):
            super().finalize_options()
            # Ninja knows what is left to do; without it, nothing knows a changed header or flag.
            self.force = True

        def build_extensions(self):
            # Python's own flags and compiler are those of the machine that Python was built on.
            command = shlex.split(found.compiler)
            for name in self.compiler.executables:
                if name in ("compiler", "compiler_cxx"):
                    self.compiler.set_executable(name, command)
                elif name.startswith("compiler_so"):
                    self.compiler.set_executable(name, [*command, "-fPIC"])
                elif name.startswith("linker_so"):
                    self.compiler.set_executable(name, [*command, "-shared"])
            super().build_extensions()

        def copy_file(self, infile, outfile, *args, **kwargs):
            # In place, whoever loads the file meanwhile gets the old one or the new one, whole.
            _, copied = super().copy_file(infile, f"{outfile}.new", *args, **kwargs)
            os.replace(f"{outfile}.new", outfile)
            return outfile, copied

        def get_ext_filename(self, fullname):
            return os.path.join(*fullname.split(".")[:-1], FILE_NAME)

    return BuildOperators


@contextlib.contextmanager
def one_at_a_time(folder):
    """Hold a lock on a build folder: a second build waits for the first."""
    import fcntl

    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(sentence):
    print(f"iwin_d2: {sentence}.", file=sys.stderr, flush=True)


def main():
    try:
        request = requested()
        found = None if request == "none" else survey()
        kind, reason = decide(request, found)
    except BuildError as error:
        raise SystemExit(f"error: {error}") from None
    if kind == "none":
        say(f"{WITHOUT}: {reason}")
        return setup(cmdclass={"build_py": BuildPython})
    # What PyTorch's build tools read, in part when they are imported:
    if kind == "cuda":
        os.environ["CUDA_HOME"] = str(found.toolkit)
    os.environ["CXX"] = found.compiler
    # Where the ninja of a virtual environment lies that is not activated.
    os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], sysconfig.get_path("scripts")])
    os.environ.setdefault("MAX_JOBS", str(len(os.sched_getaffinity(0))))
    setup(
        ext_modules=[extension(kind, found)],
        cmdclass={
            "build_ext": build_command(request, kind, found, reason),
            "build_py": BuildPython,
        },
        options={"bdist_wheel": {"py_limited_api": "cp310"}},
    )


if __name__ == "__main__":
    main()
