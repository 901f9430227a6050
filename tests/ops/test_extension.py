"""The file of the compiled operators is loaded where it fits; otherwise one sentence says why."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from iwin_d2.ops import extension

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
