#!/usr/bin/env python3
"""Make .venv ready: create it when missing, install what the project needs, compile the operators.

Run by `make`; standard library only, since nothing is installed yet. Each step has its stamp: a
change in csrc/ compiles again and installs nothing, a second run with nothing changed takes a
moment. `--build` compiles in any case, and fails where nothing can be compiled. Any Python 3.7 can
read this file, and say that it is too old.
"""

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMP = VENV / "iwin_d2.stamp"
OPERATORS = ROOT / "iwin_d2" / "_C.abi3.so"
OPERATORS_STAMP = VENV / "operators.json"
OPERATORS_LOG = VENV / "operators.log"
OLDEST_PYTHON = (3, 10)
GIGABYTES_NEEDED = 8
# As GCC writes them (a.cpp:1:2: warning: ..) and as nvcc does (a.cu(1): warning #177-D: ..).
WARNINGS_AND_ERRORS = r"\S*csrc/\S+: (warning|(fatal )?error)\b"


class SetupError(Exception):
    """Why the environment could not be made, in one sentence."""


def main(arguments=()):
    """Set up; return the exit status."""
    try:
        check_python(sys.version_info, sys.executable)
        installed = STAMP.is_file() and STAMP.read_text() == fingerprint()
        if not installed:
            create_venv()
            install()
            STAMP.write_text(fingerprint())
        must_build = "--build" in arguments
        without = None if must_build else what_operators_lack()
        compiled = without is not None
        if not compiled:
            without = build_operators()
        if must_build and without:
            raise SetupError(f"{without}.")
    except SetupError as error:
        print(f"set-up failed: {error}", file=sys.stderr)
        return 1
    if without:
        print(f"set-up: {without}")
    if installed and compiled:
        print("set-up: .venv is ready")
    else:
        print("set-up: done; `. .venv/bin/activate` gives you the same environment")
    return 0


def check_python(version, executable):
    """Refuse a Python that is too old or cannot make virtual environments."""
    if tuple(version[:2]) < OLDEST_PYTHON:
        wanted, found = (".".join(map(str, v[:2])) for v in (OLDEST_PYTHON, version))
        raise SetupError(
            f"Python {wanted} or newer is needed, but {executable} is {found}: install one and "
            "run `make PYTHON=/path/to/python3`."
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise SetupError(
            f"{executable} has no module venv: install it (Debian: apt-get install python3-venv)."
        ) from None


def fingerprint():
    """What the environment was made from; when it changes, pip runs again."""
    sources = [ROOT / name for name in ("constraints.txt", "pyproject.toml")]
    return digest([*sources, Path(__file__)], sys.version)


def digest(paths, text):
    """One number for a text and for the names and contents of files."""
    sha = hashlib.sha256(text.encode())
    for path in paths:
        sha.update(path.name.encode() + path.read_bytes())
    return sha.hexdigest()


def create_venv():
    """Create .venv when it is missing or does not run."""
    python = VENV / "bin" / "python"
    if python.exists() and subprocess.run([str(python), "-c", "pass"], check=False).returncode == 0:
        print("set-up: reusing .venv")
        return
    free = shutil.disk_usage(ROOT).free / 2**30
    if free < GIGABYTES_NEEDED:
        raise SetupError(
            f"{free:.1f} GB are free in {ROOT}, and PyTorch with its libraries takes about "
            f"{GIGABYTES_NEEDED}: make room."
        )
    print(f"set-up: creating .venv with {sys.executable} (Python {sys.version.split()[0]})")
    result = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(VENV)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        last = (result.stdout.strip().splitlines() or ["no output"])[-1]
        raise SetupError(f"{sys.executable} -m venv {VENV} failed ({last}).")


def install():
    """Install the package, in place, with the pinned versions of what it needs."""
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    command = [*pip, "install", "--constraint", "constraints.txt", "--editable", ".[dev]"]
    print("set-up: installing PyTorch and the other requirements into .venv (about 5 GB; minutes)")
    print("set-up: " + " ".join(["pip", *command[4:]]), flush=True)
    # Without PyTorch, in pip's isolated build, nothing can be compiled: that is the next step.
    environ = dict(os.environ, IWIN_D2_BUILD="none")
    status, output = run(command, environ, r"(Collecting|Building|Installing|Successfully) .*")
    if status != 0:
        log = VENV / "pip.log"
        log.write_text(output)
        raise SetupError(f"{diagnose(output)} (pip's whole output: {log})")


def run(command, environ, shown):
    """Run a command, print those of its lines that match; return exit status and whole output."""
    lines = []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout:
            lines.append(line)
            if re.match(shown, line):
                print("  " + line.rstrip()[:100], flush=True)
    return process.returncode, "".join(lines)


def diagnose(output):
    """Say in one sentence why pip failed, from its output."""
    unreachable = (
        "Temporary failure in name resolution",
        "Failed to establish a new connection",
        "Name or service not known",
        "Connection refused",
        "Network is unreachable",
        "ReadTimeoutError",
        "ConnectTimeoutError",
        "ProxyError",
    )
    if any(sign in output for sign in unreachable):
        return (
            "pip cannot reach a package registry: check the network, or name a registry with "
            "PIP_INDEX_URL."
        )
    no_compiler = ("command 'gcc' failed", "command 'cc' failed", "command 'g++' failed")
    if "unable to execute" in output or any(
        f"{sign}: No such file" in output for sign in no_compiler
    ):
        return (
            "a requirement has to be compiled here and there is no C compiler: install one "
            "(Debian: apt-get install build-essential)."
        )
    if "No space left on device" in output:
        return f"the disk is full: PyTorch with its libraries takes about {GIGABYTES_NEEDED} GB."
    errors = [line.strip() for line in output.splitlines() if line.startswith("ERROR:")]
    if any("No matching distribution" in line for line in errors):
        wanted = next(line for line in errors if "No matching distribution" in line)
        return f"the registry has no fitting version: {wanted[len('ERROR: ') :]}."
    return f"pip failed: {errors[-1][len('ERROR: ') :] if errors else 'no error message'}."


def operators_state():
    """What the operators are compiled from, and what this machine has to compile them with."""
    sources = sorted(path for path in (ROOT / "csrc").rglob("*") if path.suffix != ".md")
    sources = [ROOT / "setup.py", *(path for path in sources if path.is_file())]
    torch = sorted(path.name for path in VENV.glob("lib/python*/site-packages/torch-*.dist-info"))
    folders = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")] + ["/usr/local/cuda"]
    compilers = [os.path.join(folder, "bin/nvcc") for folder in folders if folder]
    return {
        "sources": digest(sources, "".join([fingerprint(), *torch])),
        "request": os.environ.get("IWIN_D2_BUILD", ""),
        "compilers": find_compilers(),
        "toolkit": next((path for path in compilers if os.path.isfile(path)), None),
    }


def find_compilers():
    """The files of the C++ compilers that setup.py would look at."""
    names = shlex.split(os.environ.get("CXX", ""))[:1] or ["c++", "g++"]
    return [os.path.realpath(path) for path in map(shutil.which, names) if path]


def what_operators_lack():
    """Return what the last attempt lacked, "" where it succeeded, None when to compile (again)."""
    try:
        stamp = json.loads(OPERATORS_STAMP.read_text())
        before, without = stamp["state"], stamp["without"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    now = operators_state()
    if not without:
        if not OPERATORS.is_file():
            return None
        if not now["compilers"]:
            # There was one, which did its work and is not needed any more.
            now["compilers"] = before.get("compilers")
    return without if now == before else None


def build_operators():
    """Compile csrc/ in place; return "" or, where this machine cannot do that, what it lacks."""
    state = operators_state()
    if state["compilers"] and state["request"] != "none":
        how_long = "minutes, with CUDA's" if state["toolkit"] else "a minute or two"
        print(f"set-up: compiling the operators ({how_long})", flush=True)
    command = [str(VENV / "bin" / "python"), "setup.py", "build_ext", "--inplace"]
    status, output = run(command, dict(os.environ), WARNINGS_AND_ERRORS)
    OPERATORS_LOG.write_text(output)
    said = re.findall(r"^iwin_d2: (.*)\.$", output, re.MULTILINE)
    if status != 0 or not said:
        errors = re.findall(r"^error: (.*)\.$", output, re.MULTILINE) or ["setup.py failed"]
        raise SetupError(f"{with_log(errors[-1])}.")
    without = "" if said[-1].startswith("the operators are compiled") else with_log(said[-1])
    if without:
        # What other sources were compiled to is not to be used.
        with contextlib.suppress(FileNotFoundError):
            OPERATORS.unlink()
    else:
        print(f"set-up: {with_log(said[-1])}", flush=True)
    OPERATORS_STAMP.write_text(json.dumps({"state": state, "without": without}))
    return without


def with_log(sentence):
    """Add where the compiler's output is, to a sentence about it."""
    return f"{sentence}; its output is in {OPERATORS_LOG}" if "failed" in sentence else sentence


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
