"""Taking turns, the machine's rates, and the tool's command line."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

from iwin_d2.benchmark import rates
from iwin_d2.benchmark.cases import CASES
from iwin_d2.benchmark.machine import describe_machine
from iwin_d2.benchmark.table import against, table
from iwin_d2.benchmark.timing import take_turns

TOOL = Path(__file__).resolve().parents[2] / "tools/benchmark.py"


def test_each_goes_first_every_other_round():
    calls = []

    def candidate(name):
        def run():
            calls.append(name)
            return len(calls)

        return run

    results = take_turns({name: candidate(name) for name in "ab"}, rounds=3, warmup=1)
    assert "".join(calls) == "abbaabba"
    assert results == {"a": [4, 5, 8], "b": [3, 6, 7]}


def test_rates_are_amounts_over_times(monkeypatch):
    seconds = {"copy": 0.5, "torch.mm": 0.25, "oneDNN's 1x1 convolution": 0.125, "mine": 1.0}
    monkeypatch.setattr(
        rates, "time_in_turn", lambda candidates, _: {k: (seconds[k], 1.0) for k in candidates}
    )
    times, found = rates.time_with_rates({"mine": print}, 1, copied=1000, product=(2, 3, 4))
    assert times == {"mine": (1.0, 1.0)}
    assert found.copy == 4 * 2 * 1000 / 0.5
    assert found.products["torch.mm"] == 4 * 48 / 0.25
    assert found.gemm == max(found.products.values())
    assert "torch.mm" in found.describe()


def test_the_libraries_compute_one_product():
    results = [run() for run in rates._products(6, 16, 8).values()]
    for result in results:
        pixels = result if result.dim() == 2 else result.permute(0, 2, 3, 1).reshape(6, 8)
        torch.testing.assert_close(pixels, results[0])


def test_a_table():
    lines = table("a title", ("", "value"), [("row", against("1.5", "at least 1"))], "a note")
    assert "\n".join(lines) == (
        "### a title\n\n|  | value |\n| --- | --- |\n| row | 1.5 (at least 1) |\n\na note\n"
    )
    assert against("1.5", None) == "1.5"


def test_the_machine_is_described():
    line = describe_machine()
    assert f"{torch.get_num_threads()} threads, torch {torch.__version__}" in line
    assert torch.backends.cpu.get_cpu_capability() in line
    assert "attention: " in line


@pytest.fixture
def run_tool(monkeypatch):
    monkeypatch.setattr(rates, "measure_rates", lambda: rates.Rates(1e9, {"torch.mm": 1e9}))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # to have it restored: --threads sets it
    for name in CASES:
        monkeypatch.setitem(CASES, name, lambda name=name, rounds=0: [f"{name}, {rounds}"])

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(TOOL), run_name="__main__")
        return end.value.code

    return run


@pytest.mark.parametrize("what", [*CASES, "all"])
def test_the_tool(what, run_tool, capsys):
    threads = str(torch.get_num_threads())
    assert run_tool(what, "--rounds", "3", "--threads", threads) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Machine: {describe_machine()}"
    assert lines[1].startswith("Rates: copies 1.0 GB/s, torch.mm 1 GFLOP/s")
    assert lines[3:] == [f"{name}, 3" for name in (CASES if what == "all" else [what])]


@pytest.mark.parametrize("arguments", [["nothing"], ["ops", "--rounds", "0"], ["ops", "--threads"]])
def test_bad_command_lines(arguments, run_tool, capsys):
    assert run_tool(*arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("benchmark.py: error: argument")
