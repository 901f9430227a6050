"""The choice of the framework, in processes of their own: it is made once, at import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iwin_d2.d2.framework import FRAMEWORK, detectron2_is_installed

ROOT = Path(__file__).resolve().parents[2]


def choose(folder, wanted):
    variables = {"IWIN_D2_FRAMEWORK": wanted, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from iwin_d2.d2 import framework as f; print(f.FRAMEWORK, f.REASON)",
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **variables},
    )


def test_a_folder_named_detectron2_is_not_the_package(tmp_path):
    """A clone of its source, say, in the folder that a tool is started in."""
    (tmp_path / "detectron2").mkdir()
    expected = (
        "detectron2 it is installed"
        if detectron2_is_installed()
        else "native detectron2 is not installed"
    )
    assert choose(tmp_path, "").stdout.strip() == expected


def test_the_environment_variable_decides(tmp_path):
    assert choose(tmp_path, " Native ").stdout.strip() == "native IWIN_D2_FRAMEWORK is set"
    assert "IWIN_D2_FRAMEWORK='mmdet' is not known" in choose(tmp_path, "mmdet").stderr


@pytest.mark.skipif(detectron2_is_installed(), reason="for where it is not installed")
def test_asking_for_what_is_not_there(tmp_path):
    assert FRAMEWORK == "native"
    assert "detectron2 is not installed" in choose(tmp_path, "detectron2").stderr
