#!/usr/bin/env python3
"""Make .venv ready: create it when missing, install what the project needs, once.

Run by `make`; standard library only, since nothing is installed yet. A second run with nothing
changed takes a moment. Any Python 3.7 can read it, and say that it is too old.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMP = VENV / "iwin_d2.stamp"
OLDEST_PYTHON = (3, 10)
GIGABYTES_NEEDED = 8


class SetupError(Exception):
    """Why the environment could not be made, in one sentence."""


def main():
    """Set up; return the exit status."""
    try:
        check_python(sys.version_info, sys.executable)
        if STAMP.is_file() and STAMP.read_text() == fingerprint():
            print("set-up: .venv is ready")
            return 0
        create_venv()
        install()
        STAMP.write_text(fingerprint())
    except SetupError as error:
        print(f"set-up failed: {error}", file=sys.stderr)
        return 1
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
    """What the environment was made from; when it changes, set-up runs again."""
    digest = hashlib.sha256(sys.version.encode())
    sources = [ROOT / name for name in ("constraints.txt", "pyproject.toml", "setup.py")]
    sources += sorted(path for path in (ROOT / "csrc").rglob("*") if path.is_file())
    for path in [*sources, Path(__file__)]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


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
    lines = []
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout:
            lines.append(line)
            if line.startswith(("Collecting", "Building", "Installing", "Successfully")):
                print("  " + line.rstrip()[:100], flush=True)
    if process.returncode != 0:
        log = VENV / "pip.log"
        log.write_text("".join(lines))
        raise SetupError(f"{diagnose(''.join(lines))} (pip's whole output: {log})")


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


if __name__ == "__main__":
    sys.exit(main())
