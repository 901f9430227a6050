"""The parts of make test-cuda, and what stands in for missing packages; without a GPU."""

import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import run_parts
import torch
from run_parts import FAILED, PASSED, SKIPPED, Outcome, Part, Run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True, scope="session")
def on_a_gpu():
    """These tests need none."""


def python(name, code, limit=20.0, judge=run_parts.judge_program, **options):
    return Part(name, [sys.executable, "-S", "-c", code], limit, judge, **options)


def test_parts_run_together_and_each_is_told_of(tmp_path, capsys):
    run = Run(tmp_path, 60, "a title")
    table = "import sys; print('| a | b |\\n\\n### c'); print('a warning', file=sys.stderr)"
    meeting = tmp_path / "meeting"
    waits = f"import os, time\nwhile not os.path.exists({str(meeting)!r}): time.sleep(0.05)"
    run.run_stage(
        [
            python("waits", waits),
            python("benchmark x", f"{table}; open({str(meeting)!r}, 'w')"),
            python("fails", "print('first'); raise SystemExit('the reason')"),
            python("absent", "", skip="not installed"),
        ]
    )
    assert run.failed() == ["fails"]
    found = {name: outcome for name, (outcome, _) in run.outcomes.items()}
    assert found["waits"] == found["benchmark x"] == Outcome(PASSED, "")
    assert found["fails"] == Outcome(FAILED, "the reason")
    assert found["absent"] == Outcome(SKIPPED, "not installed")
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("a title\n\n| part | outcome | s | |\n")
    assert "| fails | FAILED | 0 | the reason |" in summary
    assert summary.endswith("| a | b |\n\n### c\n")
    log = (tmp_path / "log.txt").read_text()
    assert "first\nthe reason" in log and "a warning" in log
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.txt", "meeting", "summary.md"]
    assert "--- the end of fails\nfirst\nthe reason" in run_parts.report(run)
    assert re.search(r"fails FAILED in \d s: the reason", capsys.readouterr().out)


def test_what_hangs_is_ended_with_all_it_has_started(tmp_path):
    child = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-S', '-c', "
    child += "'import time; time.sleep(600)']); print(p.pid, flush=True); time.sleep(600)"
    run = Run(tmp_path, 60, "")
    run.run_stage([python("hangs", child, limit=1.0), python("does not", "print(1)")])
    assert run.failed() == ["hangs"]
    assert run.outcomes["hangs"][0].reason.startswith("ended after 1 s; its last words: ")
    pid = int(run.logs["hangs"])
    deadline = time.monotonic() + 10
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_time_for_all(tmp_path):
    run = Run(tmp_path, 1.0, "")
    run.run_stage([python("too long", "import time; time.sleep(600)")])
    run.run_stage([python("too late", "print(1)")])
    assert run.failed() == ["too long", "too late"]
    assert run.outcomes["too late"][0].reason == "not run: no time was left"


def test_the_environment_of_a_part(tmp_path, monkeypatch):
    monkeypatch.setenv("IWIN_D2_ATTENTION", "reference")
    monkeypatch.setenv("PYTHONPATH", "/some/folder")
    code = (
        "import os; print(*(os.environ.get(n) for n in ('IWIN_D2_ATTENTION', 'X', 'PYTHONPATH')))"
    )
    run = Run(tmp_path, 60, "")
    run.run_stage([python("prints", code, environ={"X": "5"})])
    attention, x, path = run.logs["prints"].split()
    assert (attention, x) == ("None", "5")
    assert path.split(os.pathsep)[1:] == [str(ROOT), "/some/folder"]


@pytest.mark.parametrize(
    ("status", "log", "outcome"),
    [
        (0, "....\n5 passed, 2 skipped in 0.12s\n", Outcome(PASSED, "5 passed, 2 skipped")),
        (0, "= 5 passed in 70.12s (0:01:10) =\n", Outcome(PASSED, "5 passed")),
        (1, "1 failed, 5 passed in 0.12s\n", Outcome(FAILED, "1 failed, 5 passed")),
        (0, "7 skipped in 0.12s\n", Outcome(FAILED, "7 skipped")),
        (5, "no tests ran in 0.12s\n", Outcome(FAILED, "exit status 5")),
        (-11, "Segmentation fault\n", Outcome(FAILED, "exit status -11")),
    ],
)
def test_what_pytest_says(status, log, outcome):
    assert run_parts.judge_tests(status, log) == outcome


CASES = "90 calls, forward and backward; 0 results are wrong\n"


@pytest.mark.parametrize(
    ("status", "log", "state"),
    [
        (0, CASES + "========= ERROR SUMMARY: 0 errors\n", PASSED),
        (
            0,
            CASES + "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n",
            PASSED,
        ),
        (0, CASES + "========= RACECHECK SUMMARY: 1 hazard displayed (0 errors, 1 w)\n", FAILED),
        (9, CASES + "========= ERROR SUMMARY: 10 errors\n", FAILED),
        (1, CASES + "========= ERROR SUMMARY: 0 errors\n", FAILED),
        (0, "========= ERROR SUMMARY: 0 errors\n", FAILED),
        (0, CASES, FAILED),
        (255, "========= Error: Device not supported. Please refer to\n", SKIPPED),
    ],
)
def test_what_compute_sanitizer_says(status, log, state):
    assert run_parts.judge_sanitizer(status, log).state == state


def test_without_compute_sanitizer_its_parts_are_skipped(monkeypatch):
    monkeypatch.setattr(run_parts.shutil, "which", lambda name, path: None)
    assert {part.skip for part in run_parts.sanitizer_parts(9)} == {
        "compute-sanitizer is not installed"
    }


@pytest.mark.parametrize("option", ["--kernel-regex", "--kernel-name", None])
def test_compute_sanitizer_looks_at_this_projects_kernels(option, tmp_path, monkeypatch):
    program = tmp_path / "compute-sanitizer"
    program.write_text(f"#!/bin/sh\necho '  {option or ''} arg   Controls which kernels'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    parts = run_parts.sanitizer_parts(9)
    assert [part.name for part in parts] == ["memcheck", "racecheck", "synccheck", "initcheck"]
    for part in parts:
        assert part.command[:3] == [str(program), "--tool", part.name]
        assert ("kns=iwin_d2" in part.command) == (option in part.command) == (option is not None)
        assert Path(part.command[-1]).is_file() and part.command[-2] == sys.executable


def test_every_part_can_be_run():
    names = []
    for part in (part for stage in run_parts.stages() for part in stage):
        names.append(part.name)
        for argument in part.command[1:]:
            path = argument.removeprefix("--ignore=")
            if "/" in path or path.endswith(".py"):
                assert (ROOT / path).exists()
        assert part.skip or 0 < part.limit <= run_parts.SECONDS / 2
    assert names[0] == "build" and len(set(names)) == len(names)
    assert sum(name.startswith("benchmark") for name in names) == 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here, and it would be used")
def test_without_a_gpu_one_sentence_says_so(tmp_path):
    # What a make tells those that it starts, if this test runs in one: to say where they are.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    result = subprocess.run(
        ["make", "test-cuda", f"RUN={sys.executable}", f"OUT={tmp_path}/out"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0 and not result.stdout
    first, *rest = result.stderr.splitlines()
    assert first == (
        "make test-cuda needs a GPU of NVIDIA's and a PyTorch that finds it, and there is no CUDA "
        "device here (torch.cuda.is_available() is False)."
    )
    assert all(line.startswith("make") for line in rest)
    assert not (tmp_path / "out").exists()


class TestPlaceholders:
    """Modules in the place of packages that are not installed."""

    @pytest.fixture(autouse=True)
    def finder(self, monkeypatch, tmp_path):
        path = ROOT / "tests/cuda/placeholders/sitecustomize.py"
        monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
        spec = importlib.util.spec_from_file_location("placeholders_under_test", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(module, "PACKAGES", ("not_there_at_all", "json"))
        monkeypatch.syspath_prepend(tmp_path)
        before = set(sys.modules)
        yield
        for name in set(sys.modules) - before:
            del sys.modules[name]

    def test_names_can_be_imported_derived_from_and_called_by_imports(self, tmp_path):
        (tmp_path / "module_of_ours.py").write_text(
            "from not_there_at_all.a.b import Registry, Base\n"
            "import not_there_at_all.c as c\n"
            "REGISTRY = Registry('NAME', size=5)\n"
            "@REGISTRY.register()\n"
            "def function(x: Base | c.Other | None = None): return 5\n"
            "@c.decorate\n"
            "class Derived(Base): pass\n"
        )
        module = importlib.import_module("module_of_ours")
        assert module.function() == 5
        assert isinstance(module.Derived, type) and issubclass(module.Derived, module.Base)
        for call in (module.Derived, module.Registry, lambda: module.REGISTRY.get("x")):
            with pytest.raises(ModuleNotFoundError, match="not_there_at_all is not installed") as e:
                call()
            assert e.value.name == "not_there_at_all"
        assert sys.modules["not_there_at_all"].is_placeholder

    def test_what_is_installed_stays_as_it_is(self):
        import json

        assert not hasattr(json, "is_placeholder")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("json.no_such_part")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("somebody_elses_package_that_is_missing")
