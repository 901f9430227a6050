"""The environment report says what a bug report needs, also when something is broken."""

import builtins
import re
import subprocess
import sys

import torch

from iwin_d2.environment import collect_environment


def test_report_as_a_command():
    result = subprocess.run(
        [sys.executable, "-m", "iwin_d2"], capture_output=True, text=True, check=True
    )
    version = re.escape(torch.__version__.split("+")[0])
    assert re.search(rf"^torch +{version}$", result.stdout, re.MULTILINE)
    for name in ("framework", "operator interleaved_window_attention", "CUDA", "IWIN_D2_FRAMEWORK"):
        assert name in result.stdout


def test_report_survives_a_missing_torch(monkeypatch):
    for name in [n for n in sys.modules if n.startswith("iwin_d2.ops")]:
        monkeypatch.delitem(sys.modules, name)
    original = builtins.__import__

    def without_torch(name, *args, **kwargs):
        if name == "torch":
            raise ImportError("libtorch.so: cannot open shared object file")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    assert "torch cannot be imported: libtorch.so" in collect_environment()


def test_framework_choice(tmp_path):
    def choose(value):
        return subprocess.run(
            [sys.executable, "-c", "import iwin_d2.d2 as d; print(d.describe_framework())"],
            env={"IWIN_D2_FRAMEWORK": value, "PATH": ""},
            capture_output=True,
            text=True,
        )

    assert "iwin_d2.native" in choose("native").stdout
    assert "IWIN_D2_FRAMEWORK='nativ' is not known" in choose("nativ").stderr
