#!/usr/bin/env python3
"""Compile the kernels of csrc/cuda for the emulator beside this file, as an extension of their own.

    build_emulated.py [--sanitize] [FOLDER]

makes FOLDER/_C.abi3.so (build/emulated by default), whose operators are registered for the CPU: set
IWIN_D2_EXTENSION to it, and whatever runs on the CPU runs the CUDA kernels. With --sanitize it is
built with AddressSanitizer and UBSan, else with the emulator's own checks for races.
"""

import argparse
import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EMULATOR = tuple(HERE / name for name in ("emulator.cpp", "matrices.cpp", "accesses.cpp"))
# -fsanitize=thread has the kernels call accesses.cpp; the sanitizer itself is not linked.
RACES = ("-O2", "-g1", "-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0")
SANITIZE = ("-fsanitize=address,undefined",)
SANITIZED = (*SANITIZE, "-O1", "-g", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer")


def build_script():
    """Return setup.py as a module."""
    spec = importlib.util.spec_from_file_location("build_script", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(output, kernels, others=(), sanitize=False):
    """Compile and link what has changed since it was last done.

    Args:
        output: the library; the object files go to a folder beside it.
        kernels: C++ or CUDA files with kernels, compiled so that the emulator can check them.
        others: C++ files.
        sanitize: with AddressSanitizer and UBSan.

    Raises:
        SystemExit: it does not compile, or cannot; it says why.
    """
    script = build_script()
    found = script.survey()
    reason = script.why_no_cpu(found)
    if reason:
        raise SystemExit(f"error: the emulated kernels cannot be compiled: {reason}.")
    output = Path(output).resolve()
    objects = output.parent / "objects"
    others = (*others, *EMULATOR)
    with script.one_at_a_time(objects):
        ninja = objects / "build.ninja"
        extension = script.extension("cpu", found)
        ninja.write_text(
            _ninja_file(output, objects, found.compiler, extension, kernels, others, sanitize)
        )
        path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
        command = ["ninja", "--quiet", "-f", str(ninja)]
        result = subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": path})
    if result.returncode != 0:
        raise SystemExit("error: the emulated kernels do not compile.")


def _ninja_file(output, objects, compiler, extension, kernels, others, sanitize):
    common = [
        *extension.extra_compile_args["cxx"],
        "-DIWIN_D2_EMULATED",
        f"-I{HERE}",
        "-fPIC",
        *(SANITIZED if sanitize else ("-O2", "-march=native")),
    ]
    special = ["-Wno-unknown-pragmas", *(() if sanitize else RACES)]
    link = [
        *(SANITIZE if sanitize else ()),
        *(f"-L{folder}" for folder in extension.library_dirs),
        *(f"-l{name}" for name in extension.libraries),
    ]
    lines = [
        f"builddir = {objects}",
        f"cxx = {compiler}",
        "rule compile",
        "  command = $cxx -MMD -MF $out.d -x c++ $flags -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = $cxx -shared -o $out.new $in {_quoted(link)} && mv $out.new $out",
    ]
    made = []
    for files, flags in ((kernels, [*common, *special]), (others, common)):
        for file in (ROOT / file for file in files):
            made.append(objects / ("_".join(file.relative_to(ROOT).parts) + ".o"))
            lines += [f"build {made[-1]}: compile {file}", f"  flags = {_quoted(flags)}"]
    lines.append(f"build {output}: link {' '.join(map(str, made))}")
    return "\n".join(lines) + "\n"


def _quoted(arguments):
    return " ".join(map(shlex.quote, arguments)).replace("$", "$$")


def main():
    """Build the operators."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("folder", nargs="?", default=ROOT / "build/emulated", type=Path)
    arguments = parser.parse_args()
    script = build_script()
    build(
        arguments.folder / "_C.abi3.so",
        kernels=script.sources("cuda/*.cu"),
        others=script.sources("*.cpp", "cpu/isa.cpp"),
        sanitize=arguments.sanitize,
    )


if __name__ == "__main__":
    sys.exit(main())
