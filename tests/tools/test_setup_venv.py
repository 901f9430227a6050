"""Set-up says in one sentence what keeps it from working."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "tools" / "setup_venv.py"


@pytest.fixture(scope="module")
def setup_venv():
    spec = importlib.util.spec_from_file_location("setup_venv", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_old_python_is_named(setup_venv):
    with pytest.raises(setup_venv.SetupError, match=r"3\.10 or newer.*/usr/bin/python3 is 3\.8"):
        setup_venv.check_python((3, 8, 10), "/usr/bin/python3")
    setup_venv.check_python(sys.version_info, sys.executable)


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("... Failed to establish a new connection: [Errno 111] Connection refused", "registry"),
        ("error: command 'gcc' failed: No such file or directory", "C compiler"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        (
            "ERROR: No matching distribution found for torch==2.11.0\n",
            r"no fitting version.*torch==2\.11\.0",
        ),
        ("ERROR: something new\n", "pip failed: something new"),
        ("", "no error message"),
    ],
)
def test_pip_failures_become_a_sentence(setup_venv, output, sentence):
    assert re.search(sentence, setup_venv.diagnose(output))


def test_the_fingerprint_follows_the_sources(setup_venv, monkeypatch, tmp_path):
    for name in ("constraints.txt", "pyproject.toml", "setup.py"):
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(setup_venv, "ROOT", tmp_path)
    before = setup_venv.fingerprint()
    assert setup_venv.fingerprint() == before
    (tmp_path / "constraints.txt").write_text("2")
    assert setup_venv.fingerprint() != before


def test_a_ready_environment_is_left_alone(setup_venv, monkeypatch, tmp_path, capsys):
    stamp = tmp_path / "stamp"
    stamp.write_text(setup_venv.fingerprint())
    monkeypatch.setattr(setup_venv, "STAMP", stamp)
    monkeypatch.setattr(setup_venv, "create_venv", lambda: pytest.fail("must not run"))
    assert setup_venv.main() == 0
    assert "ready" in capsys.readouterr().out
