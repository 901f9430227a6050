"""Set-up does what is left to do, and says in one sentence what keeps it from working."""

import importlib.util
import json
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


@pytest.fixture
def tree(setup_venv, monkeypatch, tmp_path):
    """A folder with what set-up reads, as its ROOT; its Python is this one."""
    for name in ("constraints.txt", "pyproject.toml", "setup.py", "csrc/op.cpp", "csrc/README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    (tmp_path / "iwin_d2").mkdir()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / ".venv/bin/python").chmod(0o755)
    monkeypatch.setattr(setup_venv, "ROOT", tmp_path)
    monkeypatch.setattr(setup_venv, "VENV", tmp_path / ".venv")
    for name in ("STAMP", "OPERATORS", "OPERATORS_STAMP", "OPERATORS_LOG"):
        relative = getattr(setup_venv, name).relative_to(PATH.parents[1])
        monkeypatch.setattr(setup_venv, name, tmp_path / relative)
    for name in ("IWIN_D2_BUILD", "CXX", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def compiled(setup_venv, without=""):
    """Leave the tree as an attempt to compile does."""
    if not without:
        setup_venv.OPERATORS.write_text("operators")
    stamp = {"state": setup_venv.operators_state(), "without": without}
    setup_venv.OPERATORS_STAMP.write_text(json.dumps(stamp))


def test_the_fingerprint_follows_the_requirements(setup_venv, tree):
    before = setup_venv.fingerprint()
    (tree / "csrc/op.cpp").write_text("2")
    (tree / "setup.py").write_text("2")
    assert setup_venv.fingerprint() == before
    (tree / "constraints.txt").write_text("2")
    assert setup_venv.fingerprint() != before


@pytest.mark.parametrize("name", ["csrc/op.cpp", "csrc/new.h", "setup.py", "constraints.txt"])
def test_a_changed_source_is_compiled_again(setup_venv, tree, name):
    compiled(setup_venv)
    assert setup_venv.what_operators_lack() == ""
    (tree / "csrc/README.md").write_text("2")
    assert setup_venv.what_operators_lack() == ""
    (tree / name).write_text("2")
    assert setup_venv.what_operators_lack() is None


def test_operators_are_compiled_where_they_are_missing(setup_venv, tree, monkeypatch):
    assert setup_venv.what_operators_lack() is None
    setup_venv.OPERATORS_STAMP.write_text("half a sta")
    assert setup_venv.what_operators_lack() is None
    compiled(setup_venv)
    monkeypatch.setenv("IWIN_D2_BUILD", "none")
    assert setup_venv.what_operators_lack() is None
    monkeypatch.delenv("IWIN_D2_BUILD")
    setup_venv.OPERATORS.unlink()
    assert setup_venv.what_operators_lack() is None


def test_another_pytorch_in_the_environment_compiles_again(setup_venv, tree):
    compiled(setup_venv)
    (tree / ".venv/lib/python3.11/site-packages/torch-2.99.0.dist-info").mkdir(parents=True)
    assert setup_venv.what_operators_lack() is None


def test_a_compiler_that_appears_is_used(setup_venv, tree, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    compiled(setup_venv, without="no compiler")
    assert setup_venv.what_operators_lack() == "no compiler"
    monkeypatch.setenv("CXX", sys.executable)
    assert setup_venv.what_operators_lack() is None
    # One that disappears takes nothing away.
    compiled(setup_venv)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert setup_venv.what_operators_lack() == ""


def says(tree, *lines, status=0):
    (tree / "setup.py").write_text(
        f"import sys\nprint({chr(10).join(lines)!r}, file=sys.stderr)\nsys.exit({status})\n"
    )


def test_compiling(setup_venv, tree, capsys):
    setup_venv.STAMP.write_text(setup_venv.fingerprint())
    says(
        tree,
        "running",
        "/usr/b.h:1:2: warning: not ours",
        "csrc/a.cpp:1:2: warning: odd",
        "/x/csrc/cuda/a.cu(12): warning #177-D: never used",
        "iwin_d2: the operators are compiled for X.",
    )
    setup_venv.OPERATORS.write_text("made by that setup.py")
    assert setup_venv.main() == 0
    out = capsys.readouterr().out
    assert "set-up: the operators are compiled for X" in out
    assert "csrc/a.cpp:1:2: warning: odd" in out
    assert "csrc/cuda/a.cu(12): warning #177-D: never used" in out
    assert "running" not in out
    assert "not ours" not in out
    assert "running" in setup_venv.OPERATORS_LOG.read_text()
    assert setup_venv.main() == 0
    assert capsys.readouterr().out == "set-up: .venv is ready\n"


def test_without_a_compiler_setup_succeeds_and_says_so_each_time(setup_venv, tree, capsys):
    setup_venv.STAMP.write_text(setup_venv.fingerprint())
    compiled(setup_venv)
    says(tree, "iwin_d2: no compiled operators: there is no C++ compiler.")
    for last in ("done;", ".venv is ready"):
        assert setup_venv.main() == 0
        lines = capsys.readouterr().out.splitlines()
        assert "set-up: no compiled operators: there is no C++ compiler" in lines
        assert last in lines[-1]
        assert not setup_venv.OPERATORS.exists()  # compiled from other sources
    assert setup_venv.main(["--build"]) == 1
    assert "failed: no compiled operators: there is no C++ compiler." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["error: IWIN_D2_BUILD='x' is not known."], r"IWIN_D2_BUILD='x' is not known\."),
        (["error: compiling csrc/ failed (why)."], r".* failed \(why\); its output is in .*log\."),
        (["Traceback", "KeyError: 1"], r"setup\.py failed; its output is in .*log\."),
    ],
)
def test_what_fails_is_one_sentence(setup_venv, tree, capsys, lines, sentence):
    setup_venv.STAMP.write_text(setup_venv.fingerprint())
    says(tree, *lines, status=1)
    assert setup_venv.main() == 1
    assert re.fullmatch(f"set-up failed: {sentence}\n", capsys.readouterr().err)
    assert not setup_venv.OPERATORS_STAMP.exists()


def test_a_ready_environment_is_left_alone(setup_venv, tree, monkeypatch, capsys):
    setup_venv.STAMP.write_text(setup_venv.fingerprint())
    compiled(setup_venv)
    monkeypatch.setattr(setup_venv, "create_venv", lambda: pytest.fail("must not run"))
    monkeypatch.setattr(setup_venv, "build_operators", lambda: pytest.fail("must not run"))
    assert setup_venv.main() == 0
    assert "ready" in capsys.readouterr().out
